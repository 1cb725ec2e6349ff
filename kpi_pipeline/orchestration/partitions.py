"""The grid: one partition for each date and workspace, and the blocks of it that runs cover."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg
from dagster import AssetExecutionContext, DagsterInstance, DagsterRunStatus, RunsFilter

from kpi_pipeline.domain.calendar import days_between, first_grid_date
from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration import runs
from kpi_pipeline.orchestration.dagster_private import PartitionBackfill, unfinished_backfills
from kpi_pipeline.orchestration.failures import failure
from kpi_pipeline.settings import Settings
from kpi_pipeline.sync.scope import BackfillScope, KpiAsset, PartitionBlock

# A partition key names the dimensions in the order of their names: "2026-03-04|acme".
DATE, WORKSPACE = "date", "workspace"

# A refresh requests sending plans once an hour; its runs start up to some minutes late.
_PLAN_MAX_AGE = timedelta(minutes=57)

# The sensor retries within a minute; a person may take a day to start a run again.
_RETRIED_FOR = timedelta(days=1)

GRID_ASSETS = [dg.AssetKey(asset.value) for asset in KpiAsset]

workspace_partitions = dg.DynamicPartitionsDefinition(name=WORKSPACE)


def first_date(settings: Settings, today: date) -> date:
    """The first date of the grid: as configured, else 1 January of last year.

    It moves once a year, and keeps the grid well below the 100,000 partitions that Dagster advises
    for an asset. Rows of earlier dates stay in the database.
    """
    return first_grid_date(settings.first_date, today)


def kpi_grid(settings: Settings, today: date) -> dg.MultiPartitionsDefinition:
    """Date × workspace, from the first date to today, which is a partition while it is open."""
    days = dg.DailyPartitionsDefinition(
        start_date=first_date(settings, today).isoformat(),
        timezone=settings.day_zone.key,
        end_offset=1,
    )
    return dg.MultiPartitionsDefinition({DATE: days, WORKSPACE: workspace_partitions})


def add_workspaces(dagster_instance: DagsterInstance, active: Sequence[str]) -> None:
    """Add the `workspace` partitions of these clients, after those that are there."""
    current = dagster_instance.get_dynamic_partitions(WORKSPACE)
    missing = [key for key in active if key not in current]
    if missing:
        dagster_instance.add_dynamic_partitions(WORKSPACE, missing)


def remove_workspaces(
    dagster_instance: DagsterInstance, inactive: Collection[str], now: datetime
) -> list[str]:
    """Remove the `workspace` partitions of these clients that nothing refers to; return the others.

    Dagster gives a backfill up, for all its clients, once one of its partitions does not exist, and
    a run fails whose range begins or ends with one. So a partition stays while a backfill or run
    that has not ended covers it, and for a day after a run failed that begins or ends with it: the
    run may be retried.
    """
    if not inactive:
        return []
    used = _workspaces_in_use(dagster_instance, now)
    for key in sorted(set(inactive) - used):
        dagster_instance.delete_dynamic_partition(WORKSPACE, key)
    return sorted(used.intersection(inactive))


def _workspaces_in_use(dagster_instance: DagsterInstance, now: datetime) -> set[str]:
    used = set()
    # Before the runs: a backfill that is evaluated meanwhile launches runs over the same keys.
    for backfill in unfinished_backfills(dagster_instance):
        used |= {_dimensions(key)[WORKSPACE] for key in _keys_of(backfill) if "|" in key}
    order = dagster_instance.get_dynamic_partitions(WORKSPACE)
    for run in dagster_instance.get_runs(RunsFilter(statuses=runs.NOT_FINISHED)):
        ends = _named_workspaces(run.tags)
        used |= ends
        places = [order.index(key) for key in ends if key in order]
        if places:
            used.update(order[min(places) : max(places) + 1])
    failed = RunsFilter(statuses=[DagsterRunStatus.FAILURE], updated_after=now - _RETRIED_FOR)
    for run in dagster_instance.get_runs(failed):
        used |= _named_workspaces(run.tags)
    return used


def _named_workspaces(tags: Mapping[str, str]) -> set[str]:
    """The workspaces that a run's tags name: the ends of its range, or of its one partition."""
    named = [tags.get(tag, "") for tag in (runs.RANGE_START, runs.RANGE_END, runs.PARTITION)]
    found = {_dimensions(key)[WORKSPACE] for key in named if "|" in key}
    return found | {tags[it] for it in [f"{runs.PARTITION}/{WORKSPACE}"] if it in tags}


def block_tags(workspaces: Sequence[str], dates: Sequence[date]) -> dict[str, str]:
    """The tags of a run over workspaces that are adjacent in the grid × consecutive dates."""
    first, last = min(dates).isoformat(), max(dates).isoformat()
    return {
        runs.RANGE_START: dg.MultiPartitionKey({DATE: first, WORKSPACE: workspaces[0]}),
        runs.RANGE_END: dg.MultiPartitionKey({DATE: last, WORKSPACE: workspaces[-1]}),
    }


def block_from_tags(tags: Mapping[str, str], order: Sequence[str]) -> PartitionBlock | None:
    """The block that a run's tags name, with the workspaces of `order` between its ends.

    None if they name no block, or one whose first or last workspace is no partition anymore, or
    has become one again, after the others.
    """
    if not {runs.RANGE_START, runs.RANGE_END} <= tags.keys() or _names_single_partitions(tags):
        return None
    start, end = _dimensions(tags[runs.RANGE_START]), _dimensions(tags[runs.RANGE_END])
    try:
        first, last = order.index(start[WORKSPACE]), order.index(end[WORKSPACE])
    except ValueError:
        return None
    if first > last:
        return None
    dates = days_between(date.fromisoformat(start[DATE]), date.fromisoformat(end[DATE]))
    return PartitionBlock(order[first : last + 1], dates)


def contiguous_groups(
    order: Sequence[str], wanted: Sequence[str], max_size: int | None = None
) -> Iterator[list[str]]:
    """Cut `wanted` into groups that are contiguous in `order`, of at most `max_size` each.

    A range of partitions goes from one workspace to another in the order in which the keys were
    added, so workspaces that are not contiguous need a run each.

    Raises:
        KpiError: naming the workspaces that have no partition yet.
    """
    unknown = sorted(set(wanted) - set(order))
    if unknown:
        raise KpiError(
            f"No partition yet for {', '.join(unknown)}: materialize the asset client_registry."
        )
    group: list[str] = []
    for key in order:
        if key in wanted:
            group.append(key)
        if group and (key not in wanted or len(group) == max_size):
            yield group
            group = []
    if group:
        yield group


def block_of(context: AssetExecutionContext) -> PartitionBlock:
    """The block that a run covers.

    Raises:
        dg.Failure: if the run carries both a range and single partitions. A backfill started from
            the page of a job does (dagster issue 28861); Dagster would fill the first partition of
            each range, and report all of them as materialized.
    """
    _require_one_kind(context.run.tags)
    keys = [dg.MultiPartitionKey(_dimensions(key)) for key in context.partition_keys]
    days = sorted({date.fromisoformat(key.keys_by_dimension[DATE]) for key in keys})
    # A dict, unlike a set, keeps the order of the grid.
    workspaces = list(dict.fromkeys(key.keys_by_dimension[WORKSPACE] for key in keys))
    if len(keys) != len(days) * len(workspaces) or days != days_between(days[0], days[-1]):
        raise failure(
            "The run's partitions are no block of workspaces × consecutive dates. "
            "Start it from the asset's page, which cuts a selection into blocks."
        )
    backfill = _backfill_of(context)
    if backfill is not None and (backfill.first, backfill.last) == (days[0], days[-1]):
        backfill = None  # This run has all the dates of each of its clients.
    refreshes = context.run.tags.get(runs.SCHEDULE) == runs.INTRADAY_REFRESH
    return PartitionBlock(workspaces, days, backfill, _PLAN_MAX_AGE if refreshes else timedelta(0))


def _backfill_of(context: AssetExecutionContext) -> BackfillScope | None:
    """The backfill that the run belongs to; None for any other run, and for one that is retried.

    A run that somebody starts again is to fetch its facts again.
    """
    backfill_id = context.run.tags.get(runs.BACKFILL)
    if backfill_id is None or context.run.parent_run_id is not None:
        return None
    backfill = context.instance.get_backfill(backfill_id)
    if backfill is None:
        return None
    days = {_dimensions(key)[DATE] for key in _keys_of(backfill)}
    if not days:
        return None
    requested_at = datetime.fromtimestamp(backfill.backfill_timestamp, UTC)
    return BackfillScope(requested_at, date.fromisoformat(min(days)), date.fromisoformat(max(days)))


def _keys_of(backfill: PartitionBackfill) -> set[str]:
    """The partition keys that a backfill of assets fills."""
    if backfill.asset_backfill_data is None:
        return set()
    subsets = backfill.asset_backfill_data.target_subset.partitions_subsets_by_asset_key
    return {key for subset in subsets.values() for key in subset.get_partition_keys()}


def _dimensions(key: str) -> dict[str, str]:
    day, workspace = key.split("|", 1)
    return {DATE: day, WORKSPACE: workspace}


def _names_single_partitions(tags: Mapping[str, str]) -> bool:
    return any(it == runs.PARTITION or it.startswith(f"{runs.PARTITION}/") for it in tags)


def _require_one_kind(tags: Mapping[str, str]) -> None:
    if runs.RANGE_START in tags and _names_single_partitions(tags):
        raise failure(
            "This run names both a range of partitions and single partitions, so it is unclear "
            "which of them to fill. Start the backfill from the asset's page."
        )
