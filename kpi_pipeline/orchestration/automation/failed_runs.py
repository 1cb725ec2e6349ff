"""Runs, and ticks of schedules and sensors, that failed in Dagster and have not succeeded since.

Most failed runs are not among them: they have an entry in `sync_log` for each client, or a result
of the registry's check that says what is wrong.
"""

import json
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunRecord, RunsFilter

from kpi_pipeline.alerts.sources import FailedRun, FailedTick
from kpi_pipeline.checks.outcome import Check
from kpi_pipeline.db.alerts import SYNC
from kpi_pipeline.db.check_results import read_outcomes
from kpi_pipeline.db.sync_log import read_entries
from kpi_pipeline.orchestration.assets.specs import REGISTRY
from kpi_pipeline.orchestration.dagster_private import InstigatorState, InstigatorType, TickStatus
from kpi_pipeline.orchestration.partitions import GRID_ASSETS
from kpi_pipeline.orchestration.runs import EVENTS_TAG, WILL_RETRY

if TYPE_CHECKING:
    from kpi_pipeline.app import AppContext

_FIRST_PERIOD = timedelta(hours=1)
# A run's end carries the time at which it was written, and is visible a moment later.
_OVERLAP = timedelta(seconds=10)
_MAX_RUNS = 100
_FINISHED_TICKS = [TickStatus.SUCCESS, TickStatus.SKIPPED, TickStatus.FAILURE]


def failed_runs(
    dagster_instance: DagsterInstance, app: "AppContext", cursor: str | None
) -> tuple[list[FailedRun], str]:
    """The failed runs whose work no later run did; and the new cursor, which remembers them.

    A run that Dagster itself retries has not failed for good. Events that a run did not apply are
    requested again by their own sensor, and have a check.
    """
    since, failed = _read_cursor(cursor)
    records = dagster_instance.get_run_records(
        filters=RunsFilter(
            statuses=[DagsterRunStatus.FAILURE, DagsterRunStatus.SUCCESS],
            updated_after=since - _OVERLAP,
        ),
        order_by="update_timestamp",
        ascending=True,
        limit=_MAX_RUNS,
    )
    for record in records:
        run = record.dagster_run
        if run.status is DagsterRunStatus.SUCCESS:
            for what in _subjects(run):
                failed.pop(what, None)
        elif run.tags.get(WILL_RETRY) != "true" and not _is_in_tables(record, app):
            at = record.update_timestamp.isoformat()
            failed |= dict.fromkeys(_subjects(run), (run.run_id, at))
        since = record.update_timestamp
    found = [
        FailedRun(run_id, what, datetime.fromisoformat(at))
        for what, (run_id, at) in sorted(failed.items())
    ]
    return found, json.dumps({"since": since.isoformat(), "failed": failed})


def failed_ticks(dagster_instance: DagsterInstance, names: Collection[str]) -> list[FailedTick]:
    """Those of these schedules and sensors that are on, and whose last tick failed."""
    found = []
    for state in dagster_instance.all_instigator_state():
        if not state.is_running or state.instigator_name not in names:
            continue
        failed_at = _failed_at(dagster_instance, state)
        if failed_at is not None:
            kind = "schedule" if state.instigator_type is InstigatorType.SCHEDULE else "sensor"
            found.append(FailedTick(state.instigator_name, kind, failed_at))
    return found


def _read_cursor(cursor: str | None) -> tuple[datetime, dict[str, tuple[str, str]]]:
    if cursor is None:
        return datetime.now(UTC) - _FIRST_PERIOD, {}
    kept = json.loads(cursor)
    failed = {what: (run_id, at) for what, (run_id, at) in kept["failed"].items()}
    return datetime.fromisoformat(kept["since"]), failed


def _subjects(run: DagsterRun) -> set[str]:
    """What the run worked on; a later run that succeeds at it resolves the failure."""
    if EVENTS_TAG in run.tags:
        return set()
    assets = set(run.asset_selection or ())
    if assets:
        others = {key.to_user_string() for key in assets.difference(GRID_ASSETS)}
        return others | ({SYNC} if assets.intersection(GRID_ASSETS) else set())
    if run.asset_check_selection:
        return {"checks"}
    return {run.job_name}


def _is_in_tables(record: RunRecord, app: "AppContext") -> bool:
    """Whether `sync_log` or the registry's check holds the failure."""
    run = record.dagster_run
    with app.engine.connect() as connection:
        if any(it.error is not None for it in read_entries(connection, [run.run_id])):
            return True
        if REGISTRY not in (run.asset_selection or ()) or record.start_time is None:
            return False
        found = read_outcomes(connection, [Check.REGISTRY_MATCHES_BISON])
    began = datetime.fromtimestamp(record.start_time, UTC)
    return any(it.since is not None and it.checked_at >= began for it in found)


def _failed_at(dagster_instance: DagsterInstance, state: InstigatorState) -> datetime | None:
    """When the last tick failed; None if it succeeded, or there is none."""
    ticks = dagster_instance.get_ticks(
        state.instigator_origin_id, state.selector_id, limit=1, statuses=_FINISHED_TICKS
    )
    if not ticks or ticks[0].status is not TickStatus.FAILURE:
        return None
    return datetime.fromtimestamp(ticks[0].timestamp, UTC)
