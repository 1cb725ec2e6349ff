"""The sensor that retries, once, what a failed run over several clients left undone.

A failed run has written, and logged, the results of its healthy clients (assets/client_kpis.py).
Left are the clients that failed, and those that it never reached because its process died. A failed
run over one client is final.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

import dagster as dg
from dagster import DagsterInstance, DagsterRun, RunRecord, RunRequest, SensorEvaluationContext

from kpi_pipeline.db.registry.clients import active_clients
from kpi_pipeline.db.sync_log import read_entries
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.partitions import (
    GRID_ASSETS,
    WORKSPACE,
    block_from_tags,
    block_tags,
    contiguous_groups,
)
from kpi_pipeline.orchestration.runs import (
    BACKFILL,
    EVENTS_TAG,
    PRIORITY,
    RETRY_OF,
    RETRY_PRIORITY,
    WILL_RETRY,
    is_canceled,
)
from kpi_pipeline.settings import Settings
from kpi_pipeline.sync.scope import PartitionBlock

# More clients that fail together share a reason, such as an outage: they are retried as blocks.
_MAX_ALONE = 10
_FIRST_PERIOD = timedelta(hours=1)
# A run's end carries the time at which it happened, on the clock of its machine, and is stored
# later: by minutes where the database was unreachable.
_OVERLAP = timedelta(minutes=10)
# The next evaluation handles the rest.
_MAX_RUNS = 50


def build_retry_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor `retry_failed_clients`."""

    @dg.sensor(
        name="retry_failed_clients",
        target=GRID_ASSETS,
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Retries, once, what a failed run over several clients left undone: each "
        "client that failed on its own, and those that it did not reach as blocks.",
    )
    def retry_failed_clients(context: SensorEvaluationContext, app: AppResource) -> dg.SensorResult:
        cursor = _Cursor.read(context.cursor)
        records = _failed(context.instance, cursor)
        order = context.instance.get_dynamic_partitions(WORKSPACE)
        requests: list[RunRequest] = []
        for record in records:
            run = record.dagster_run
            block = block_from_tags(run.tags, order)
            if block is None or not _is_retried(run, block) or _is_called_off(context, run):
                continue
            with app.opened() as opened, opened.engine.connect() as connection:
                entries = read_entries(connection, [run.run_id])
                active = {client.workspace for client in active_clients(connection)}
            succeeded = {entry.workspace: entry.error is None for entry in entries}
            # A client that was deactivated is left undone for good.
            succeeded |= {it: True for it in block.workspaces if it not in active}
            requests += _requests(run, block, succeeded, settings.workspaces_per_run)
        return dg.SensorResult(
            run_requests=requests, cursor=cursor.after(records) or context.cursor
        )

    return retry_failed_clients


@dataclass(frozen=True)
class _Cursor:
    """The sensor's cursor: the end of the last failed run, and the runs that were handled.

    `handled` maps the ids of runs that failed within the overlap to their time. An id alone is
    handled once: run keys would prevent doubles, but are forgotten when old runs are deleted.
    """

    since: datetime
    handled: Mapping[str, str]

    @classmethod
    def read(cls, cursor: str | None) -> Self:
        if cursor is None:
            return cls(datetime.now(UTC) - _FIRST_PERIOD, {})
        if not cursor.startswith("{"):
            # As earlier versions wrote it.
            return cls(datetime.fromisoformat(cursor), {})
        kept = json.loads(cursor)
        return cls(datetime.fromisoformat(kept["since"]), kept["handled"])

    @property
    def read_from(self) -> datetime:
        return self.since - _OVERLAP

    def after(self, records: Sequence[RunRecord]) -> str | None:
        """The cursor once these are handled; None if there are none."""
        if not records:
            return None
        since = max(self.since, *(it.update_timestamp for it in records))
        ids = {it.dagster_run.run_id: it.update_timestamp.isoformat() for it in records}
        handled = {
            run_id: at
            for run_id, at in {**self.handled, **ids}.items()
            if datetime.fromisoformat(at) > since - _OVERLAP
        }
        return json.dumps({"since": since.isoformat(), "handled": handled})


def _failed(dagster_instance: DagsterInstance, cursor: _Cursor) -> list[RunRecord]:
    """The failed runs that are not handled yet, those apart that Dagster itself retries.

    A tag that is added later touches a run again: one that ended before the period is left out.
    """
    records = dagster_instance.get_run_records(
        filters=dg.RunsFilter(
            statuses=[dg.DagsterRunStatus.FAILURE], updated_after=cursor.read_from
        ),
        order_by="update_timestamp",
        ascending=True,
    )
    new = [
        it
        for it in records
        if it.dagster_run.run_id not in cursor.handled
        and it.dagster_run.tags.get(WILL_RETRY) != "true"
        and (it.end_time is None or it.end_time > cursor.read_from.timestamp())
    ]
    return new[:_MAX_RUNS]


def _is_retried(run: DagsterRun, block: PartitionBlock) -> bool:
    # A retry is not retried again, so there is an end, whatever fails. And the sensor of the events
    # requests those that a run did not apply, when they are due.
    return len(block.workspaces) > 1 and RETRY_OF not in run.tags and EVENTS_TAG not in run.tags


def _is_called_off(context: SensorEvaluationContext, run: DagsterRun) -> bool:
    """Whether a person canceled the run, or the backfill that it belongs to."""
    if is_canceled(run):
        return True
    backfill = context.instance.get_backfill(run.tags[BACKFILL]) if BACKFILL in run.tags else None
    return backfill is not None and backfill.status.value in ("CANCELING", "CANCELED")


def _requests(
    run: DagsterRun, block: PartitionBlock, succeeded: Mapping[str, bool], max_workspaces: int
) -> list[RunRequest]:
    """What the run left undone; `succeeded` holds the workspaces that it finished."""
    failed = [it for it in block.workspaces if not succeeded.get(it, True)]
    alone = failed if len(failed) <= _MAX_ALONE else []
    together = [
        it for it in block.workspaces if it not in alone and (it in failed or it not in succeeded)
    ]
    groups: list[Sequence[str]] = [[it] for it in alone]
    groups += contiguous_groups(block.workspaces, together, max_workspaces)
    return [
        RunRequest(
            run_key=f"{run.run_id} {group[0]}..{group[-1]}",
            asset_selection=sorted(run.asset_selection or GRID_ASSETS),
            asset_check_keys=[],
            run_config=run.run_config,
            tags={
                **block_tags(group, block.dates),
                RETRY_OF: run.run_id,
                PRIORITY: RETRY_PRIORITY,
            },
        )
        for group in groups
    ]
