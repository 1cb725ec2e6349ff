"""The runs in which Dagster does a backfill, and those that ask again for what failed in them."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from dagster import DagsterInstance, DagsterRunStatus, RunRecord, RunsFilter
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import BACKFILL_ID_TAG

from kpi_pipeline.orchestration.automation.splitting import SPLIT_FROM
from kpi_pipeline.orchestration.partitions import WORKSPACE, range_of

_LONGEST_WAIT = timedelta(minutes=5)
# The sensor looks every 15 s, and has a process of Dagster's evaluate it.
_SENSOR_TAKES = timedelta(seconds=45)
_LOOK_EVERY_SECONDS = 2.0


def own_runs(instance: DagsterInstance, backfill_id: str) -> Sequence[str]:
    """The ids of the runs that Dagster launched for the backfill."""
    return instance.get_run_ids(RunsFilter(tags={BACKFILL_ID_TAG: backfill_id}))


def all_runs(instance: DagsterInstance, backfill_id: str) -> list[str]:
    """The ids of the backfill's runs, and of those that asked again for what failed in them."""
    own = own_runs(instance, backfill_id)
    return [*own, *(record.dagster_run.run_id for record in _again(instance, own))]


def wait_for_second_tries(
    instance: DagsterInstance,
    backfill_id: str,
    now: Callable[[], datetime],
    sleep: Callable[[float], None] = time.sleep,
    *,
    sensor_since: datetime | None = None,
) -> bool:
    """Wait until what failed has been asked for again, as it is by itself; five minutes at most.

    `sensor_since` is when the Dagster that does it was started, if it was not all the time. Returns
    whether nothing is left to wait for.
    """
    deadline = now() + _LONGEST_WAIT
    while _is_to_come(instance, backfill_id, now(), sensor_since):
        if now() >= deadline:
            return False
        sleep(_LOOK_EVERY_SECONDS)
    return True


def _is_to_come(
    instance: DagsterInstance, backfill_id: str, now: datetime, sensor_since: datetime | None
) -> bool:
    again = _again(instance, own_runs(instance, backfill_id))
    if any(record.dagster_run.status in NOT_FINISHED_STATUSES for record in again):
        return True
    asked_for = {record.dagster_run.tags[SPLIT_FROM] for record in again}
    failed = instance.get_run_records(
        RunsFilter(tags={BACKFILL_ID_TAG: backfill_id}, statuses=[DagsterRunStatus.FAILURE])
    )
    order = instance.get_dynamic_partitions(WORKSPACE)
    for record in failed:
        run = record.dagster_run
        covered = range_of(run.tags, order)
        # A run over one client that fails is final.
        if covered is None or len(covered.workspaces) == 1 or run.run_id in asked_for:
            continue
        failed_at = datetime.fromtimestamp(record.end_time or 0, UTC)
        if now < max(failed_at, sensor_since or failed_at) + _SENSOR_TAKES:
            return True
    return False


def _again(instance: DagsterInstance, run_ids: Sequence[str]) -> Sequence[RunRecord]:
    if not run_ids:
        return []
    return instance.get_run_records(RunsFilter(tags={SPLIT_FROM: list(run_ids)}))
