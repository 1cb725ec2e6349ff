"""Failures of one client's calls, in syncs of all clients: every other client has the right rows.

The cases are shared out over a few syncs, in each of which every case strikes a client of its own.
"""

import pytest

from kpi_pipeline_tests.agency import ROW_TABLES
from kpi_pipeline_tests.bison_sandbox.running import Stage, bison_on, options
from kpi_pipeline_tests.sync.variants.cases import (
    GIVE_A_KEY,
    IS_IT_UP,
    NOT_BELIEVED,
    SET_INACTIVE,
    Case,
    StruckSync,
    fault,
    of_each,
)
from kpi_pipeline_tests.sync.variants.cases_of_plans_and_keys import (
    KEY_CHECKS,
    PLAN_CALLS,
    REPORT_IT,
)
from kpi_pipeline_tests.sync.variants.conftest import Installation

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
        REPORT_IT,
        message="No emails scheduled for this period",
    ),
    _final(401, "(Unauthenticated)", GIVE_A_KEY),
    _final(403, "(This action is unauthorized.", GIVE_A_KEY),
    _final(404, "(record_not_found)", SET_INACTIVE),
    _final(422, "The given data was invalid.", REPORT_IT),
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


def _answered(name: str, kind: str, *said: str, **options: object) -> Case:
    """An answer is an answer: it is asked for once."""
    return Case(name, (fault(kind, **options),), (*said, NOT_BELIEVED), struck=1)


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
        "answered with 2026-01-30 under 'Replied', outside 2026-02-01 to 2026-03-18",
        "/data/0/dates/0/0",
        value="2026-01-30",
    ),
    _edited(
        "the day before the period replaces its first day under one label",
        "answered with 2026-02-01 under some of the labels only",
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
        "answered with 2026-03-03 under some of the labels only",
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


CASES = (*STATUSES, *BODIES, *COUNTS, *SHAPES, *PLAN_CALLS, *KEY_CHECKS)
# At most in one sync: fewer than there are clients.
MOST = 20
Syncs = dict[str, StruckSync]


def syncs_over(installation: Installation, stage: Stage, moment: str) -> Syncs:
    """Syncs of all clients over the rows of that moment, by the names of their cases."""
    cases = [case for case in CASES if case.error or moment == "synced"]
    syncs: Syncs = {}
    for start in range(0, len(cases), MOST):
        with bison_on(stage, options()) as bison:
            agency = installation.later(moment, bison)
            other, *victims = agency.keyed
            struck = dict(zip(victims, cases[start : start + MOST], strict=False))
            sync = StruckSync(agency, struck, other, agency.workspaces)
            syncs |= {case.name: sync for case in struck.values()}
    return syncs


@pytest.fixture(scope="module")
def syncs(installation: Installation, stage: Stage) -> Syncs:
    """Of all CASES, an hour after another sync."""
    return syncs_over(installation, stage, "synced")


@pytest.fixture(scope="module")
def first_syncs(installation: Installation, stage: Stage) -> Syncs:
    """Of the CASES that fail, before any sync."""
    return syncs_over(installation, stage, "imported")


@of_each(CASES)
def test_a_client_keeps_its_rows_or_has_the_right_ones(case: Case, syncs: Syncs) -> None:
    syncs[case.name].assert_holds(case)
    rows = syncs[case.name].rows_of(case)
    assert all(rows[table.name] for table in ROW_TABLES)


def test_every_other_client_of_these_syncs_has_the_right_rows(syncs: Syncs) -> None:
    for sync in set(syncs.values()):
        sync.assert_others_are_right()


@of_each(case for case in CASES if case.error)
@pytest.mark.long
def test_a_failure_in_a_clients_first_sync_leaves_no_row_and_no_zero(
    case: Case, first_syncs: Syncs
) -> None:
    first_syncs[case.name].assert_holds(case)
    assert not any(first_syncs[case.name].rows_of(case).values())


@pytest.mark.long
def test_every_other_client_of_these_first_syncs_has_the_right_rows(first_syncs: Syncs) -> None:
    for sync in set(first_syncs.values()):
        sync.assert_others_are_right()
