"""The gateway's answers, and what is stored by then."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from kpi_pipeline.gateway.webhooks import MAX_BODY_BYTES
from kpi_pipeline_tests.domain.bodies import content
from kpi_pipeline_tests.gateway.support import FIRST_ID, WORKSPACES, Gateway, encoded, lead

NOT_FOUND = "There is nothing here."


def padded(event: Mapping[str, Any], size: int) -> bytes:
    """The body, padded to that many bytes."""
    empty = encoded({**event, "text": ""})
    return encoded({**event, "text": "x" * (size - len(empty))})


def in_chunks(body: bytes) -> Iterator[bytes]:
    """The body in chunks, which is sent without a content-length."""
    for start in range(0, len(body), 65_536):
        yield body[start : start + 65_536]


def test_an_event_is_in_the_clients_row_when_it_is_answered(served: Gateway) -> None:
    body = encoded(lead(FIRST_ID + 1))
    before = served.positive_today().get(WORKSPACES[1], 0)

    answer = served.post(body)

    assert (answer.status_code, answer.json()["status"]) == (200, "applied")
    assert answer.json()["new"] is True
    (row,) = served.stored(body)
    assert (row["id"], row["workspace"]) == (answer.json()["id"], WORKSPACES[1])
    assert served.positive_today()[WORKSPACES[1]] == before + 1


def test_a_repeated_event_in_either_letter_case_counts_once(
    served: Gateway,
) -> None:
    event = lead()
    again = {**event, "event": {**event["event"], "type": "lead_interested"}}
    first = served.post(event)
    counted = served.positive_today()

    answers = [served.post(event), served.post(again)]

    for answer in answers:
        assert answer.status_code == 200
        assert answer.json() == {**first.json(), "new": False}
    (row,) = served.stored(encoded(event))
    assert row["deliveries"] == 3
    assert served.stored(encoded(again)) == []
    assert served.positive_today() == counted


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (content("EMAIL_OPENED", {"lead": {"id": 1}}, FIRST_ID), "ignored"),
        (content("SOMETHING_NEW", {"lead": {"id": 1}}, FIRST_ID), "ignored"),
        (lead(999_999), "unmatched"),
    ],
    ids=["counts in no number", "an unknown type", "an unregistered workspace"],
)
def test_an_event_that_does_not_count_is_stored_and_acknowledged(
    served: Gateway, event: Mapping[str, Any], status: str
) -> None:
    answer = served.post(event)
    assert (answer.status_code, answer.json()["status"]) == (200, status)
    assert answer.json()["reason"].endswith(".")
    (row,) = served.stored(encoded(event))
    assert row["status"] == status


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\x00\xff", b'{"event": {"type": "lead_interested"}}'],
    ids=["empty", "cut off", "a list", "null", "bytes", "without a workspace"],
)
def test_an_invalid_body_is_stored_and_answered_with_the_reason(
    served: Gateway, body: bytes
) -> None:
    answer = served.post(body)
    assert (answer.status_code, answer.json()["status"]) == (400, "invalid")
    assert answer.json()["reason"].startswith("The body can't be understood: ")
    (row,) = served.stored(body)
    assert (row["status"], row["instance"]) == ("invalid", "main")


def test_the_secret_identifies_the_instance(served: Gateway) -> None:
    body = encoded(lead())
    answer = served.post(body, served.secrets["emea"])
    # The id is that of a client of the other instance.
    assert answer.json()["status"] == "unmatched"
    (row,) = served.stored(body)
    assert (row["instance"], row["workspace"]) == ("emea", None)


@pytest.mark.parametrize("secret", ["x" * 43, "SHORTER", "LOWER", "%FF%00", "..", "a/b"])
def test_without_the_secret_nothing_is_written(served: Gateway, secret: str) -> None:
    own = served.secrets["main"]
    guess = {"SHORTER": own[:-1], "LOWER": own.swapcase()}.get(secret, secret)
    before = served.count()
    answer = served.post(lead(), guess)
    assert answer.status_code == 404
    assert own not in answer.text
    assert served.count() == before


def test_an_unknown_secret_is_answered_with_a_plain_sentence(served: Gateway) -> None:
    assert served.post(lead(), "y" * 43).json() == {"error": NOT_FOUND}


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_no_other_method_writes_anything(served: Gateway, method: str) -> None:
    before = served.count()
    answer = served.http.request(method, served.path, content=encoded(lead()))
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert served.count() == before


def test_a_body_may_have_a_mebibyte_and_no_byte_more(served: Gateway) -> None:
    largest, larger = (padded(lead(), size) for size in (MAX_BODY_BYTES, MAX_BODY_BYTES + 1))
    assert served.post(largest).json()["status"] == "applied"
    assert len(served.stored(largest)) == 1
    answer = served.post(larger)
    assert answer.status_code == 413
    assert str(MAX_BODY_BYTES) in answer.json()["error"]
    assert served.stored(larger) == []


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 2 * MAX_BODY_BYTES])
def test_a_large_body_without_a_content_length_is_rejected_too(served: Gateway, size: int) -> None:
    body = padded(lead(), size)
    answer = served.http.post(served.path, content=in_chunks(body))
    assert answer.status_code == 413
    assert served.stored(body) == []
    small = encoded(lead())
    assert served.http.post(served.path, content=in_chunks(small)).status_code == 200
    assert len(served.stored(small)) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_healthz_and_readyz_need_no_secret(served: Gateway, path: str, method: str) -> None:
    answer = served.http.request(method, path)
    assert answer.status_code == 200
    assert answer.text == "" or list(answer.json()) == ["status"]


def test_a_path_that_is_nearly_right_is_not_found(served: Gateway) -> None:
    for path in (f"{served.path}/", "/healthz/", "/docs", "/"):
        answer = served.http.post(path, content=b"{}")
        assert (answer.status_code, answer.headers.get("location")) == (404, None)
