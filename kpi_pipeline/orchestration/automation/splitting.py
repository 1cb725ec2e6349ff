"""After a run over several clients failed: what it left undone is asked for again, once.

A failed run has written, and recorded, whatever its healthy clients' work brought; see
`orchestration/assets/client_kpis.py`. What is left are the clients that failed, and those that it
never reached,
if its process died. A run over one client that fails is final.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster import DagsterRun, RunRequest, SensorEvaluationContext

from kpi_pipeline.db.sync_log import read_entries
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.automation.event_runs import EVENTS_TAG
from kpi_pipeline.orchestration.partitions import WORKSPACE, block_tags, contiguous_groups, range_of
from kpi_pipeline.settings import Settings
from kpi_pipeline.sync.scope import KpiAsset, PartitionBlock

SPLIT_FROM = "kpi/split_from"

_WILL_RETRY = "dagster/will_retry"
_GRID_ASSETS = [dg.AssetKey(step.value) for step in KpiAsset]
# More that fail together fail for one reason, such as an outage: they are asked for as ranges.
_MOST_ALONE = 10
_LOOKS_BACK = timedelta(hours=1)
_RUNS_A_LOOK = 50


def build_splitting(settings: Settings) -> dg.SensorDefinition:
    """The sensor that asks again for what failed runs over several clients left undone."""

    @dg.sensor(
        name="split_failed_runs",
        target=_GRID_ASSETS,
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks again, once, for what a failed run over several clients left undone: "
        "each client that failed alone, and those that were not reached as ranges.",
    )
    def split_failed_runs(context: SensorEvaluationContext, app: AppResource) -> dg.SensorResult:
        records = context.instance.get_run_records(
            filters=dg.RunsFilter(
                statuses=[dg.DagsterRunStatus.FAILURE], updated_after=_since(context.cursor)
            ),
            order_by="update_timestamp",
            ascending=True,
            limit=_RUNS_A_LOOK,
        )
        order = context.instance.get_dynamic_partitions(WORKSPACE)
        requests: list[RunRequest] = []
        for run in (record.dagster_run for record in records):
            covered = range_of(run.tags, order)
            if covered is not None and _is_to_be_split(run, covered):
                with app.opened() as opened, opened.engine.connect() as connection:
                    entries = read_entries(connection, [run.run_id])
                went_well = {entry.workspace: entry.error is None for entry in entries}
                requests += _requests(run, covered, went_well, settings.workspaces_per_run)
        cursor = records[-1].update_timestamp.isoformat() if records else context.cursor
        return dg.SensorResult(run_requests=requests, cursor=cursor)

    return split_failed_runs


def _since(cursor: str | None) -> datetime:
    """Runs that failed after this moment are looked at; at the first look, the last hour's."""
    return datetime.fromisoformat(cursor) if cursor else datetime.now(UTC) - _LOOKS_BACK


def _is_to_be_split(run: DagsterRun, covered: PartitionBlock) -> bool:
    # What a split asked for is not split again, so that it ends, whatever fails. A run that
    # Dagster itself starts again, because its process died, has not failed for good. And events
    # that a run did not apply are asked for again by their own sensor, when they are due.
    return (
        len(covered.workspaces) > 1
        and SPLIT_FROM not in run.tags
        and EVENTS_TAG not in run.tags
        and run.tags.get(_WILL_RETRY) != "true"
    )


def _requests(
    run: DagsterRun, covered: PartitionBlock, went_well: Mapping[str, bool], most: int
) -> list[RunRequest]:
    """What the run left undone, given how the clients fared that it was done with."""
    failed = [it for it in covered.workspaces if not went_well.get(it, True)]
    unreached = [it for it in covered.workspaces if it not in went_well]
    alone = failed if len(failed) <= _MOST_ALONE else []
    together = [it for it in covered.workspaces if it in unreached or it in failed]
    groups: list[Sequence[str]] = [[it] for it in alone]
    groups += contiguous_groups(
        covered.workspaces, [it for it in together if it not in alone], most
    )
    return [
        RunRequest(
            run_key=f"{run.run_id} {group[0]}..{group[-1]}",
            asset_selection=sorted(run.asset_selection or _GRID_ASSETS),
            asset_check_keys=[],
            tags={**block_tags(group, covered.dates), SPLIT_FROM: run.run_id},
        )
        for group in groups
    ]
