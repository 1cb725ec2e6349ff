"""What failed in Dagster, and is not done well since: runs, and the ticks of schedules and sensors.

Most failed runs are no matter of this: they have left a line in `sync_log` for each client, or have
said in the registry's check what is wrong.
"""

import json
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunRecord, RunsFilter
from dagster._core.scheduler.instigation import InstigatorState, InstigatorType, TickStatus
from dagster._core.storage.tags import WILL_RETRY_TAG

from kpi_pipeline.alerts.sources import SYNC, FailedRun, FailedTick
from kpi_pipeline.checks.outcome import Check
from kpi_pipeline.db.check_results import read_outcomes
from kpi_pipeline.db.sync_log import read_entries
from kpi_pipeline.orchestration.assets.specs import REGISTRY
from kpi_pipeline.orchestration.automation.event_runs import EVENTS_TAG
from kpi_pipeline.sync.scope import KpiAsset

if TYPE_CHECKING:
    from kpi_pipeline.app import AppContext

_GRID = {step.value for step in KpiAsset}
_LOOKS_BACK = timedelta(hours=1)
# A run's end bears the time at which it was written, and is seen a moment later.
_SEEN_AFTER = timedelta(seconds=10)
_RUNS_A_LOOK = 100
_OVER = [TickStatus.SUCCESS, TickStatus.SKIPPED, TickStatus.FAILURE]


def failed_runs(
    instance: DagsterInstance, app: "AppContext", cursor: str | None
) -> tuple[list[FailedRun], str]:
    """The failed runs that no later one made good; and the cursor, which keeps them in mind.

    A run that Dagster itself starts again has not failed for good. Events that a run did not apply
    are asked for again by their own sensor, and have a check.
    """
    since, failed = _read(cursor)
    records = instance.get_run_records(
        filters=RunsFilter(
            statuses=[DagsterRunStatus.FAILURE, DagsterRunStatus.SUCCESS],
            updated_after=since - _SEEN_AFTER,
        ),
        order_by="update_timestamp",
        ascending=True,
        limit=_RUNS_A_LOOK,
    )
    for record in records:
        run = record.dagster_run
        if run.status is DagsterRunStatus.SUCCESS:
            for what in _worked_on(run):
                failed.pop(what, None)
        elif run.tags.get(WILL_RETRY_TAG) != "true" and not _has_told(record, app):
            at = record.update_timestamp.isoformat()
            failed |= dict.fromkeys(_worked_on(run), (run.run_id, at))
        since = record.update_timestamp
    told = [
        FailedRun(run_id, what, datetime.fromisoformat(at))
        for what, (run_id, at) in sorted(failed.items())
    ]
    return told, json.dumps({"since": since.isoformat(), "failed": failed})


def failed_ticks(instance: DagsterInstance, names: Collection[str]) -> list[FailedTick]:
    """Those of these schedules and sensors that are on and whose last tick failed."""
    found = []
    for state in instance.all_instigator_state():
        failed_at = _failed_at(instance, state) if _is_on(state, names) else None
        if failed_at is not None:
            kind = "schedule" if state.instigator_type is InstigatorType.SCHEDULE else "sensor"
            found.append(FailedTick(state.instigator_name, kind, failed_at))
    return found


def _read(cursor: str | None) -> tuple[datetime, dict[str, tuple[str, str]]]:
    if cursor is None:
        return datetime.now(UTC) - _LOOKS_BACK, {}
    kept = json.loads(cursor)
    failed = {what: (run_id, at) for what, (run_id, at) in kept["failed"].items()}
    return datetime.fromisoformat(kept["since"]), failed


def _worked_on(run: DagsterRun) -> set[str]:
    """What a later run has to do well, so that this one need bother nobody."""
    if EVENTS_TAG in run.tags:
        return set()
    assets = {key.to_user_string() for key in run.asset_selection or ()}
    if assets:
        return assets - _GRID | ({SYNC} if assets & _GRID else set())
    if run.asset_check_selection:
        return {"checks"}
    return {run.job_name}


def _has_told(record: RunRecord, app: "AppContext") -> bool:
    """Whether the tables say it: `sync_log`, client by client, or the check of the registry."""
    run = record.dagster_run
    with app.engine.connect() as connection:
        if any(it.error is not None for it in read_entries(connection, [run.run_id])):
            return True
        if REGISTRY not in (run.asset_selection or ()) or record.start_time is None:
            return False
        found = read_outcomes(connection, [Check.REGISTRY_MATCHES_BISON])
    began = datetime.fromtimestamp(record.start_time, UTC)
    return any(it.since is not None and it.checked_at >= began for it in found)


def _is_on(state: InstigatorState, names: Collection[str]) -> bool:
    return state.is_running and state.instigator_name in names


def _failed_at(instance: DagsterInstance, state: InstigatorState) -> datetime | None:
    ticks = instance.get_ticks(
        state.instigator_origin_id, state.selector_id, limit=1, statuses=_OVER
    )
    if not ticks or ticks[0].status is not TickStatus.FAILURE:
        return None
    return datetime.fromtimestamp(ticks[0].timestamp, UTC)
