"""Two processes keep one pace together, by the moments at which their calls arrive."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from sqlalchemy import Engine

from kpi_pipeline_tests.agency import Agency
from kpi_pipeline_tests.bison_sandbox.running import TODAY, Bison
from kpi_pipeline_tests.db.support import LEASE_SECONDS, note_slots, slots_of
from kpi_pipeline_tests.processes.workers import Call, Reading, Task, at_work, calls_of

CALLS_PER_SECOND = 5
CALLS_EACH = 30
SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def _paced(agency: Agency, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KPI_BISON_CALLS_PER_SECOND", str(CALLS_PER_SECOND))
    # A slot is leased for 30 s longer than a call may take; the noted slots are based on that.
    monkeypatch.setenv("KPI_BISON_TIMEOUT_SECONDS", str(LEASE_SECONDS - 30))
    note_slots(engine)


def tasks_of(agency: Agency) -> list[Task]:
    """For each of two processes, readings of one call each, with the clients' own keys."""
    day = TODAY - timedelta(days=1)
    return [
        Task([Reading(keyed[number % len(keyed)], day, day) for number in range(CALLS_EACH)], 8)
        for keyed in (agency.keyed[0::2], agency.keyed[1::2])
    ]


def calls_of_both(agency: Agency, bison: Bison) -> list[Call]:
    """The sandbox's log of all that both did; no reading may be lost."""
    agency.forget_calls()
    with at_work(*tasks_of(agency)) as workers:
        for worker in workers:
            outcomes = worker.outcomes(300)
            assert [it.error for it in outcomes] == [None] * CALLS_EACH
    return calls_of(bison)


def assert_the_rate_is_kept(slots: Sequence[datetime], calls: Sequence[Call]) -> None:
    """Never more than five calls in any second.

    A slot is the moment at which a call may leave, noted by the database without any delay; slots
    keep to the rate without exception. On its way a call can be held up, by a connection that is
    still to be opened or by a busy machine. The pace leaves room for a tenth of a second of that; a
    machine that stops for longer is forgiven once.
    """
    moments = [call.at for call in calls]
    assert len(moments) == len(slots)
    assert all(slot <= moment for slot, moment in zip(slots, moments, strict=True))
    assert crowded_seconds(slots) == []
    settled = [moment for moment in moments if moment >= moments[0] + SECOND]
    assert len(crowded_seconds(settled)) <= 1


def crowded_seconds(moments: Sequence[datetime]) -> list[datetime]:
    """The moments from which on a second, its end not included, holds more than the rate allows."""
    ends = moments[CALLS_PER_SECOND:]
    return [start for start, end in zip(moments, ends, strict=False) if end < start + SECOND]


@pytest.mark.alone
@pytest.mark.server
def test_two_processes_together_keep_to_the_rate_and_use_it(
    agency: Agency, bison: Bison, engine: Engine
) -> None:
    calls = calls_of_both(agency, bison)

    assert len(calls) == 2 * CALLS_EACH
    assert_the_rate_is_kept(slots_of(engine), calls)
    seconds = (calls[-1].at - calls[0].at).total_seconds()
    assert (len(calls) - 1) / seconds >= 0.85 * CALLS_PER_SECOND


@pytest.mark.alone
@pytest.mark.server
def test_a_429_stops_both_processes_and_loses_no_reading(
    agency: Agency, bison: Bison, engine: Engine
) -> None:
    bison.fault("status", status=429, retry_after=2, after=20, times=3)

    calls = calls_of_both(agency, bison)

    assert len(calls) == 2 * CALLS_EACH + 3
    assert_the_rate_is_kept(slots_of(engine), calls)
    pauses = [
        after.at - refused.answered() for refused, after in pairwise(calls) if refused.status == 429
    ]
    assert len(pauses) == 3
    assert min(pauses) >= 2 * SECOND
    # What was asked for, up to a second of jitter, and some time to wake up.
    assert max(pauses) <= 4 * SECOND
