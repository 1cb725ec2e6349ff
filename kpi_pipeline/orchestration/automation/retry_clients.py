"""The sensor that retries, once, what a failed run over several clients left undone.

A failed run has written, and logged, the results of its healthy clients (assets/client_kpis.py).
Left are the clients that failed, and those that it never reached because its process died. A failed
run over one client is final.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster import DagsterRun, RunRequest, SensorEvaluationContext

from kpi_pipeline.db.sync_log import read_entries
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.partitions import (
    GRID_ASSETS,
    WORKSPACE,
    block_from_tags,
    block_tags,
    contiguous_groups,
)
from kpi_pipeline.orchestration.runs import EVENTS_TAG, RETRY_OF, WILL_RETRY
from kpi_pipeline.settings import Settings
from kpi_pipeline.sync.scope import PartitionBlock

# More clients that fail together share a reason, such as an outage: they are retried as blocks.
_MAX_ALONE = 10
_FIRST_PERIOD = timedelta(hours=1)
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
        records = context.instance.get_run_records(
            filters=dg.RunsFilter(
                statuses=[dg.DagsterRunStatus.FAILURE], updated_after=_since(context.cursor)
            ),
            order_by="update_timestamp",
            ascending=True,
            limit=_MAX_RUNS,
        )
        order = context.instance.get_dynamic_partitions(WORKSPACE)
        requests: list[RunRequest] = []
        for run in (record.dagster_run for record in records):
            block = block_from_tags(run.tags, order)
            if block is not None and _is_retried(run, block):
                with app.opened() as opened, opened.engine.connect() as connection:
                    entries = read_entries(connection, [run.run_id])
                succeeded = {entry.workspace: entry.error is None for entry in entries}
                requests += _requests(run, block, succeeded, settings.workspaces_per_run)
        cursor = records[-1].update_timestamp.isoformat() if records else context.cursor
        return dg.SensorResult(run_requests=requests, cursor=cursor)

    return retry_failed_clients


def _since(cursor: str | None) -> datetime:
    """Runs that failed after this moment are read; at the first evaluation, the last hour's."""
    return datetime.fromisoformat(cursor) if cursor else datetime.now(UTC) - _FIRST_PERIOD


def _is_retried(run: DagsterRun, block: PartitionBlock) -> bool:
    # A retry is not retried again, so there is an end, whatever fails. A run that Dagster itself
    # retries, because its process died, has not failed for good. And the sensor of the events
    # requests those that a run did not apply, when they are due.
    return (
        len(block.workspaces) > 1
        and RETRY_OF not in run.tags
        and EVENTS_TAG not in run.tags
        and run.tags.get(WILL_RETRY) != "true"
    )


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
            tags={**block_tags(group, block.dates), RETRY_OF: run.run_id},
        )
        for group in groups
    ]
