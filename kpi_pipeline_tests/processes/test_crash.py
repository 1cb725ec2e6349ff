"""A process dies while it holds the master key and a call slot."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, Table, func, select, update

from kpi_pipeline.db.tables import bison_call_slots, bison_master_key_leases
from kpi_pipeline_tests.agency import SERIES, Agency
from kpi_pipeline_tests.bison_sandbox.running import TODAY, Bison
from kpi_pipeline_tests.cli.running import wait_until
from kpi_pipeline_tests.processes.workers import Reading, Task, at_work, calls_of, true_days

FIRST, LAST = TODAY - timedelta(days=5), TODAY
CALL_SECONDS = 5


@pytest.fixture(autouse=True)
def _one_call_at_a_time(agency: Agency, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KPI_BISON_CALLS_IN_FLIGHT", "1")
    monkeypatch.setenv("KPI_BISON_TIMEOUT_SECONDS", str(CALL_SECONDS))


def reading_of(workspace: str) -> Task:
    return Task([Reading(workspace, FIRST, LAST)])


@pytest.mark.server
def test_what_a_killed_process_held_falls_to_another_when_it_expires_and_not_before(
    agency: Agency, bison: Bison, engine: Engine
) -> None:
    doomed, heir = agency.keyless[:2]
    expected = true_days(bison, agency.ids[heir], FIRST, LAST)
    bison.fault("slow", path=SERIES, seconds=60, times=1)
    agency.forget_calls()

    with at_work(reading_of(doomed)) as [victim]:
        wait_until(lambda: bool(calls_of(bison, SERIES)), "the call in mid-reading")
        victim.kill()
    lease, slot = only_row(engine, bison_master_key_leases), only_row(engine, bison_call_slots)
    # The longest wait for what the dead process held.
    assert seconds_left(engine, bison_master_key_leases) <= 30
    assert seconds_left(engine, bison_call_slots) <= CALL_SECONDS + 30
    agency.forget_calls()

    with at_work(reading_of(heir)) as [worker]:
        stays(lambda: only_row(engine, bison_master_key_leases) == lease, "the dead one's lease")
        expire(engine, bison_master_key_leases)
        wait_until(
            lambda: only_row(engine, bison_master_key_leases)["holder"] != lease["holder"],
            "the taking of the master key",
        )
        stays(lambda: only_row(engine, bison_call_slots) == slot, "the dead one's slot")
        assert calls_of(bison) == []
        expire(engine, bison_call_slots)
        [outcome] = worker.outcomes(120)

    assert (outcome.error, outcome.days) == (None, expected)
    assert {call.workspace_id for call in calls_of(bison)} == {agency.ids[heir]}
    assert rows_of(engine, bison_master_key_leases) == rows_of(engine, bison_call_slots) == []


def stays(holds: Callable[[], bool], what: str, seconds: float = 1.0) -> None:
    """Check again and again, for much longer than a waiting process takes between its tries."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert holds(), f"{what} was taken before it expired"
        time.sleep(0.05)


def rows_of(engine: Engine, table: Table) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(table)).mappings()]


def only_row(engine: Engine, table: Table) -> dict[str, Any]:
    [row] = rows_of(engine, table)
    return row


def seconds_left(engine: Engine, table: Table) -> float:
    with engine.connect() as connection:
        left = connection.scalar(select(table.c.expires_at - func.clock_timestamp()))
    assert isinstance(left, timedelta)
    return left.total_seconds()


def expire(engine: Engine, table: Table) -> None:
    """Replace the half minute until it expires."""
    with engine.begin() as connection:
        past = func.clock_timestamp() - timedelta(seconds=1)
        connection.execute(update(table).values(expires_at=past))
