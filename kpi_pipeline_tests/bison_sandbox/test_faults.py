"""What each kind of fault makes of an answer, where the connection stays whole."""

import json
from typing import Any

import pytest

from kpi_pipeline_tests.bison_sandbox.running import WORKSPACES, Bison

USERS = "/api/users"
SERIES = f"{WORKSPACES}/line-area-chart-stats"
PERIOD = {"start_date": "2026-03-16", "end_date": "2026-03-17"}


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "Unauthenticated."),
        (
            403,
            "This action is unauthorized. The api key does not match the workspace the record "
            "is on.",
        ),
        (404, "record_not_found"),
        (408, "Request Timeout"),
        (429, "Too Many Attempts."),
        (500, "Server Error"),
        (503, "Service Unavailable"),
        (599, "Error"),
    ],
)
def test_a_status_comes_in_the_vendors_words_or_in_others(
    bison: Bison, status: int, message: str
) -> None:
    bison.fault("status", status=status, times=1)
    refused = bison.get(USERS)
    assert refused.status_code == status
    assert refused.json() == {"data": {"success": False, "message": message}}
    bison.fault("status", status=status, message="Not today.")
    assert bison.get(USERS).json() == {"data": {"success": False, "message": "Not today."}}


def test_a_422_names_fields_as_the_vendors_do(bison: Bison) -> None:
    bison.fault("status", status=422)
    assert bison.get(USERS).json()["data"]["errors"]


def test_a_fault_401_has_the_body_of_other_401s(bison: Bison) -> None:
    bison.variants(wrapped_401=False)
    bison.fault("status", status=401)
    assert bison.get(USERS).json() == {"message": "Unauthenticated."}


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_is_served_as_such(bison: Bison, status: int) -> None:
    bison.fault("status", status=status)
    answer = bison.get(USERS)
    assert (answer.status_code, answer.content) == (status, b"")
    assert bison.http.get("/sandbox/setup").status_code == 200


def test_a_status_may_come_as_a_proxys_page(bison: Bison) -> None:
    bison.fault("status", status=502, html=True)
    answer = bison.get(USERS)
    assert answer.status_code == 502
    assert answer.headers["content-type"].startswith("text/html")
    assert "<h1>502 Bad Gateway</h1>" in answer.text


@pytest.mark.parametrize(
    ("variant", "given", "header"),
    [
        (True, {}, "1"),
        (False, {}, None),
        (False, {"retry_after": 7}, "7"),
        (True, {"retry_after": False}, None),
        (True, {"retry_after": "Wed, 18 Mar 2026 20:00:09 GMT"}, "Wed, 18 Mar 2026 20:00:09 GMT"),
    ],
)
@pytest.mark.parametrize("html", [False, True])
def test_a_429_has_the_retry_after_of_the_fault_or_else_of_the_variant(
    bison: Bison, variant: bool, given: dict[str, object], header: str | None, html: bool
) -> None:
    bison.variants(retry_after=variant)
    bison.fault("status", status=429, html=html, **given)
    refused = bison.get(USERS)
    assert refused.status_code == 429
    assert refused.headers.get("Retry-After") == header


@pytest.mark.parametrize("value", [False, "false"])
def test_a_200_may_carry_a_failure(bison: Bison, value: object) -> None:
    bison.fault("success_false", value=value, message="No such luck.")
    answer = bison.get(USERS)
    assert answer.status_code == 200
    data = answer.json()["data"]
    assert data == {"success": value, "message": "No such luck."}
    assert type(data["success"]) is type(value)


def test_a_200_may_be_empty_or_a_page(bison: Bison) -> None:
    bison.fault("empty", times=1)
    bison.fault("html")
    empty, page = bison.get(USERS), bison.get(USERS)
    assert (empty.status_code, empty.content, empty.headers["content-length"]) == (200, b"", "0")
    assert page.status_code == 200
    assert page.text.startswith("<!DOCTYPE html>")


def test_an_answer_may_be_cut_in_half_though_its_length_fits(bison: Bison) -> None:
    whole = bison.get(USERS)
    bison.fault("cut")
    cut = bison.get(USERS)
    assert cut.status_code == 200
    assert whole.content.startswith(cut.content)
    assert len(cut.content) == len(whole.content) // 2 == int(cut.headers["content-length"])
    with pytest.raises(json.JSONDecodeError):
        cut.json()


def test_a_call_that_a_fault_answers_does_nothing_and_one_that_is_cut_does(bison: Bison) -> None:
    here, there = (int(row["bison_workspace_id"]) for row in bison.clients()[:2])
    bison.switch(here)
    bison.fault("status", status=500, path="switch", times=1)
    assert bison.switch(there).status_code == 500
    assert bison.data(USERS)["workspace"]["id"] == here
    bison.fault("cut", path="switch")
    assert bison.switch(there).status_code == 200
    assert bison.data(USERS)["workspace"]["id"] == there


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"pointer": "/data/2/dates/0/1", "value": "12 or so"}, [["2026-03-16", "12 or so"]]),
        ({"pointer": "/data/2/dates/0", "value": None}, [None]),
        ({"pointer": "/data/2/dates/0", "remove": True}, []),
        ({"pointer": "/data/2/dates/0/1", "remove": True}, [["2026-03-16"]]),
    ],
)
def test_one_place_of_an_answer_may_be_changed(
    bison: Bison, change: dict[str, object], expected: list[object]
) -> None:
    lines = bison.data(SERIES, **PERIOD)
    bison.fault("edit", **change)
    answer = bison.get(SERIES, **PERIOD)
    assert int(answer.headers["content-length"]) == len(answer.content)
    edited = answer.json()["data"]
    assert edited[2]["dates"] == [*expected, lines[2]["dates"][1]]
    assert edited[:2] + edited[3:] == lines[:2] + lines[3:]


def test_an_element_may_be_repeated_in_an_answer(bison: Bison) -> None:
    dates = bison.data(SERIES, **PERIOD)[0]["dates"]
    bison.fault("edit", pointer="/data/0/dates/0", repeat=True)
    assert bison.data(SERIES, **PERIOD)[0]["dates"] == [dates[0], *dates]


def test_a_member_may_be_added_and_names_may_hold_slashes_and_tildes(bison: Bison) -> None:
    bison.fault("edit", pointer="/data/a~1b~0c", value={"new": [1]})
    assert bison.data(USERS)["a/b~c"] == {"new": [1]}


def test_a_whole_answer_may_be_another_document(bison: Bison) -> None:
    bison.fault("edit", pointer="", value=["no", "object"])
    assert bison.get(USERS).json() == ["no", "object"]


def test_an_answer_with_raw_control_characters_may_be_changed_too(bison: Bison) -> None:
    bison.variants(control_characters=True)
    whole = bison.get(USERS)
    bison.fault("edit", pointer="/data/id", value=99)
    assert bison.get(USERS).text == whole.text.replace('"id":1,', '"id":99,', 1)


@pytest.mark.parametrize(
    "change",
    [
        {"pointer": "/data/9/dates", "value": 1},
        {"pointer": "/data/0/dates/2", "value": 1},
        {"pointer": "/data/0/dates/01", "value": 1},
        {"pointer": "/data/0/label/x", "value": 1},
        {"pointer": "/data/0/nothing", "remove": True},
        {"pointer": "/data/0/label", "repeat": True},
    ],
)
def test_a_change_without_its_place_is_a_500_that_says_so(
    bison: Bison, change: dict[str, Any]
) -> None:
    bison.fault("edit", **change)
    answer = bison.get(SERIES, **PERIOD)
    assert answer.status_code == 500
    assert change["pointer"] in answer.json()["data"]["message"]
    assert bison.struck() == [1]
