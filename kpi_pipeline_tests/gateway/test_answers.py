"""The gateway's answers, and what is stored by then."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import URL

from kpi_pipeline.gateway.webhooks import MAX_BODY_BYTES
from kpi_pipeline_tests.cli.running import days_ago
from kpi_pipeline_tests.databases import another_database
from kpi_pipeline_tests.domain.bodies import content
from kpi_pipeline_tests.gateway.support import (
    FIRST_ID,
    WORKSPACES,
    Gateway,
    encoded,
    in_thread,
    lead,
)

NOT_FOUND = "There is nothing here."


@pytest.fixture(scope="module")
def served(postgres: URL) -> Iterator[Gateway]:
    """One gateway for all these tests, each of which sends leads of its own."""
    with another_database(postgres) as url, in_thread(url) as gateway:
        yield gateway


def stored(gateway: Gateway, body: bytes) -> list[dict[str, Any]]:
    """The rows of the inbox that hold this very body."""
    return gateway.rows("SELECT * FROM webhook_events WHERE body = :body", body=body)


def positive_today(gateway: Gateway) -> dict[str, int]:
    """The positive replies of today, by client."""
    rows = gateway.rows(
        "SELECT workspace, positive_replies_today AS n FROM client_metrics "
        "WHERE metric_date = :today",
        today=days_ago(0),
    )
    return {row["workspace"]: row["n"] for row in rows}


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
    before = positive_today(served).get(WORKSPACES[1], 0)

    answer = served.post(body)

    assert (answer.status_code, answer.json()["status"]) == (200, "applied")
    assert answer.json()["new"] is True
    (row,) = stored(served, body)
    assert (row["id"], row["workspace"]) == (answer.json()["id"], WORKSPACES[1])
    assert positive_today(served)[WORKSPACES[1]] == before + 1


def test_a_repeated_event_in_either_letter_case_counts_once(
    served: Gateway,
) -> None:
    event = lead()
    again = {**event, "event": {**event["event"], "type": "lead_interested"}}
    first = served.post(event)
    counted = positive_today(served)

    answers = [served.post(event), served.post(again)]

    for answer in answers:
        assert answer.status_code == 200
        assert answer.json() == {**first.json(), "new": False}
    (row,) = stored(served, encoded(event))
    assert row["deliveries"] == 3
    assert stored(served, encoded(again)) == []
    assert positive_today(served) == counted


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
    (row,) = stored(served, encoded(event))
    assert row["status"] == status


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\x00\xff", b'{"event": {"type": "lead_interested"}}'],
    ids=["empty", "cut off", "a list", "null", "bytes", "without a workspace"],
)
def test_an_invalid_body_is_stored_and_acknowledged_with_the_reason(
    served: Gateway, body: bytes
) -> None:
    """The sender would repeat what can never succeed."""
    answer = served.post(body)
    assert (answer.status_code, answer.json()["status"]) == (200, "invalid")
    assert answer.json()["reason"].startswith("The body can't be understood: ")
    (row,) = stored(served, body)
    assert (row["status"], row["instance"]) == ("invalid", "main")


def test_the_secret_identifies_the_instance(served: Gateway) -> None:
    body = encoded(lead())
    answer = served.post(body, served.secrets["emea"])
    # The id is that of a client of the other instance.
    assert answer.json()["status"] == "unmatched"
    (row,) = stored(served, body)
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
    assert len(stored(served, largest)) == 1
    answer = served.post(larger)
    assert answer.status_code == 413
    assert str(MAX_BODY_BYTES) in answer.json()["error"]
    assert stored(served, larger) == []


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 2 * MAX_BODY_BYTES])
def test_a_large_body_without_a_content_length_is_rejected_too(served: Gateway, size: int) -> None:
    body = padded(lead(), size)
    answer = served.http.post(served.path, content=in_chunks(body))
    assert answer.status_code == 413
    assert stored(served, body) == []
    small = encoded(lead())
    assert served.http.post(served.path, content=in_chunks(small)).status_code == 200
    assert len(stored(served, small)) == 1


def test_two_hundred_events_at_once_are_each_stored_and_counted_once(served: Gateway) -> None:
    before, number = positive_today(served), served.count()
    events = [lead(FIRST_ID + n % len(WORKSPACES)) for n in range(200)]
    # Each twice, as two hooks tell it.
    with ThreadPoolExecutor(40) as threads:
        answers = list(threads.map(served.post, events + events))
    assert {answer.json()["status"] for answer in answers} == {"applied"}
    assert sum(answer.json()["new"] for answer in answers) == 200
    assert served.count() == number + 200
    more = 200 // len(WORKSPACES)
    assert positive_today(served) == {it: before.get(it, 0) + more for it in WORKSPACES}


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
