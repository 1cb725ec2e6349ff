"""Answers with another status, another body, or a series that is wrong in one place."""

import pytest
from sqlalchemy import func, update

from kpi_pipeline.db.tables import bison_pacing
from kpi_pipeline_tests.agency import Agency, errors, of_clients
from kpi_pipeline_tests.sync.variants.scenes import (
    DATES,
    GIVE_A_KEY,
    IS_IT_UP,
    NOT_BELIEVED,
    SET_INACTIVE,
    Case,
    Nights,
    Right,
    Scene,
    Switch,
    assert_holds_alone,
    assert_right,
    everything,
    fault,
    fault_of_all,
    rows,
    three_clients,
    variant,
)

_REPORT_IT = "The request does not fit this instance; report it"
_RUN_LATER = "Run it again later, or lower KPI_BISON_CALLS_PER_SECOND"


def _final(status: int, *said: str, **options: object) -> Case:
    """A status that no other try would change."""
    name = f"the series is answered with {status}"
    seen = f"line-area-chart-stats answered {status}"
    return Case(name, (fault("status", status=status, **options),), (seen, *said), struck=1)


def _passing(status: int, in_what: str, *said: str, **options: object) -> Case:
    """A status that may pass, and does not."""
    name = f"the series is answered with {status} in {in_what}, again and again"
    seen = f"answered {status}"
    switch = fault("status", status=status, **options)
    return Case(name, (switch,), (seen, "at try 2 of 2", *said), struck=2)


STATUSES = (
    _final(
        400,
        "(No emails scheduled for this period)",
        _REPORT_IT,
        message="No emails scheduled for this period",
    ),
    _final(401, "(Unauthenticated)", GIVE_A_KEY),
    _final(403, "(This action is unauthorized.", GIVE_A_KEY),
    _final(404, "(record_not_found)", SET_INACTIVE),
    _final(422, "The given data was invalid.", _REPORT_IT),
    _passing(408, "JSON", "(Request Timeout)", IS_IT_UP),
    _passing(500, "JSON", "(Server Error)", IS_IT_UP),
    _passing(502, "a page of HTML", IS_IT_UP, html=True),
    _passing(503, "a page of HTML", IS_IT_UP, html=True),
    _passing(503, "JSON", "(Service Unavailable)", IS_IT_UP),
    Case(
        "the series is answered with 503 once",
        (fault("status", status=503, html=True, times=1),),
        struck=1,
    ),
    _passing(429, "JSON", "(Too Many Attempts)", _RUN_LATER, retry_after=1),
)

_SHORT_PATIENCE = {"bison_timeout_seconds": 0.5}


def _answered(name: str, kind: str, *said: str, **options: object) -> Case:
    """An answer is an answer: it is asked for once."""
    return Case(name, (fault(kind, **options),), (*said, NOT_BELIEVED), struck=1)


def _no_answer(name: str, kind: str, seen: str, **options: object) -> Case:
    said = (f"got no answer at try 2 of 2: {seen}", IS_IT_UP)
    return Case(name, (fault(kind, **options),), said, struck=2, settings=_SHORT_PATIENCE)


BODIES = (
    _answered(
        "a failure comes with status 200",
        "success_false",
        "answered with a failure: Try later",
        value=False,
        message="Try later.",
    ),
    _answered(
        "a failure comes with status 200, its false a text",
        "success_false",
        "answered with a failure: Something went wrong",
        value="false",
    ),
    _answered("the body is empty", "empty", "answered with an empty body"),
    _answered("200 comes with a page of HTML", "html", "something other than JSON"),
    _answered("the JSON is cut in half", "cut", "something other than JSON"),
    Case("the answer comes late, but in time", (fault("slow", seconds=0.3),), struck=1),
    Case("the connection breaks half-way once", (fault("reset", times=1),), struck=1),
)

# Lines in the vendor's order, "Sent" the third of them, and a point in the middle of the period.
_SENT = "/data/2"
_POINT = f"{_SENT}/dates/30"


def _edited(name: str, seen: str, pointer: str, **change: object) -> Case:
    said = (seen, NOT_BELIEVED)
    return Case(name, (fault("edit", pointer=pointer, **change),), said, struck=1)


def _no_count(what: str, value: object) -> Case:
    seen = "another shape (data.2.dates.30.1: it is no count)"
    return _edited(f"a count is {what}", seen, f"{_POINT}/1", value=value)


COUNTS = (
    _no_count("negative", -1),
    _no_count("negative, as a text", "-1"),
    _no_count("a fraction", 12.5),
    _no_count("a whole number with a point", 12.0),
    _no_count("null", None),
    _no_count("a word", "many"),
    _no_count("true", True),
)

SHAPES = (
    _edited(
        "a day lies before the period",
        "answered with 2026-01-31 under 'Replied', outside 2026-02-01 to 2026-03-18",
        "/data/0/dates/0/0",
        value="2026-01-31",
    ),
    _edited(
        "a day is written in another way",
        "(data.2.dates.30.0: it is no day of the form YYYY-MM-DD)",
        f"{_POINT}/0",
        value="03/03/2026",
    ),
    _edited("a day comes twice", "a day repeated under 'Sent'", _POINT, repeat=True),
    _edited(
        "one label leaves out a day",
        "answered with 2026-03-03 under some of the seven labels only",
        _POINT,
        remove=True,
    ),
    _edited("one label is not there", "answered without 'Sent'", _SENT, remove=True),
    _edited("one label comes twice", "answered with 'Sent' twice", _SENT, repeat=True),
    _edited("a line has no points", "(data.2.dates: ", f"{_SENT}/dates", remove=True),
    _edited("the data is null", "another shape (data: ", "/data", value=None),
    _edited("the data is an empty object", "another shape (data: ", "/data", value={}),
    _edited("the data is an empty list", "answered without 'Bounced', ", "/data", value=[]),
)

CASES = (*STATUSES, *BODIES, *COUNTS, *SHAPES)
ALONE = (
    _no_answer("the answer comes too late", "slow", "time-out (0.5 s)", seconds=20),
    _no_answer("the answer stops half-way", "stall", "time-out (0.5 s)"),
    _no_answer("the connection breaks half-way, again and again", "reset", "RemoteProtocolError"),
    Case(
        "the whole instance asks once to wait",
        (fault_of_all("status", status=429, retry_after=1, times=1),),
        struck=1,
    ),
    Case(
        "the whole instance answers 502",
        (fault_of_all("status", status=502, html=True),),
        ("answered 502 at try 2 of 2", IS_IT_UP),
        whose="all",
        struck=6,
    ),
)


@pytest.mark.parametrize("case", rows(ALONE))
def test_alone_a_case_leaves_the_right_rows_or_those_that_were_there(
    case: Case, an_hour_later: Agency, right: Right
) -> None:
    assert_holds_alone(case, an_hour_later, right)


@pytest.mark.parametrize("case", rows(case for case in ALONE if case.said))
@pytest.mark.long
def test_alone_a_failure_in_a_first_night_leaves_no_row_and_no_zero(
    case: Case, first_night: Agency, right: Right
) -> None:
    assert_holds_alone(case, first_night, right)


@pytest.mark.parametrize("case", rows(CASES))
def test_a_client_keeps_its_rows_or_has_the_right_ones(case: Case, nights: Nights) -> None:
    nights.assert_holds(case)
    assert all(nights.rows_of(case).values())


def test_every_other_client_of_these_nights_has_the_right_rows(nights: Nights) -> None:
    nights.assert_others_are_right()


@pytest.mark.parametrize("case", rows(case for case in CASES if case.said))
@pytest.mark.long
def test_a_failure_in_a_clients_first_night_leaves_no_row_and_no_zero(
    case: Case, first_nights: Nights
) -> None:
    first_nights.assert_holds(case)
    assert not any(first_nights.rows_of(case).values())


@pytest.mark.long
def test_every_other_client_of_these_first_nights_has_the_right_rows(first_nights: Nights) -> None:
    first_nights.assert_others_are_right()


@pytest.mark.parametrize(
    "switches",
    [
        pytest.param(
            [fault("status", status=429, retry_after=False, times=1)], id="of one key's call"
        ),
        pytest.param(
            [variant(retry_after=False), fault_of_all("status", status=429, times=1)],
            id="by an instance that never sends it",
        ),
    ],
)
def test_a_429_without_retry_after_makes_every_client_wait_for_45_to_60_seconds(
    an_hour_later: Agency, right: Right, switches: list[Switch]
) -> None:
    agency, clients = an_hour_later, three_clients(an_hour_later)
    victim, *others = clients
    before, numbers = everything(agency), right.at(agency, clients)
    for switch in switches:
        switch(Scene(agency, victim, others[0]))

    # Another try would wait for the end of the pause.
    failed = errors(agency.with_settings(bison_attempts=1).sync(DATES, [victim]))

    assert failed.keys() == {victim}
    assert "answered 429 (Too Many Attempts) at try 1 of 1" in failed[victim]
    assert everything(agency) == before
    (pacing,) = agency.table(bison_pacing)
    assert 45 <= (pacing["next_free_at"] - pacing["updated_at"]).total_seconds() <= 60

    with agency.app.engine.begin() as connection:
        connection.execute(update(bison_pacing).values(next_free_at=func.clock_timestamp()))
    assert errors(agency.sync(DATES, [victim])) == {}
    assert_right(agency, numbers, [victim])
    assert of_clients(everything(agency), others) == of_clients(before, others)
