"""Dagster's grid after its database was lost, or a part of it: reported from the stored rows.

The rows are in the KPI database, and which partitions are materialized in Dagster's: after a loss
the grid is grey, though no row is missing. What a partition stands for is one client's row of one
date, in all three tables: so a row of `client_metrics` is reported on the three assets, and older
facts, which only the windows of later dates need, are not.

A partition whose last run failed stays red, also if its row is stored, and one that a run is to
fill is left to that run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

import dagster as dg
from dagster import DagsterEventType, DagsterInstance, DagsterRunStatus, RunsFilter
from sqlalchemy import Connection, String, cast, func, select, text

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.metrics import read_day_numbers
from kpi_pipeline.db.registry.clients import active_clients
from kpi_pipeline.db.stored_days import (
    RowsOutsideGrid,
    StoredDays,
    count_outside_grid,
    partition_sum,
    read_stored_days,
    read_stored_sums,
)
from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration.assets.partition_metadata import (
    instance_urls,
    materializations,
    partition,
)
from kpi_pipeline.orchestration.dagster_private import (
    AssetKeyTable,
    SqlEventLogStorageTable,
    report_materializations,
)
from kpi_pipeline.orchestration.partitions import add_workspaces, first_date
from kpi_pipeline.orchestration.runs import NOT_FINISHED
from kpi_pipeline.orchestration.runtime.storage import PooledEventLogStorage
from kpi_pipeline.sync.run import ClientOutcome
from kpi_pipeline.sync.scope import KpiAsset

_RUNS_AT_ONCE = 500
_DESCRIPTION = "Reported by `kpi dagster rebuild` from the stored row; no run was made."
# Written by a sync, of a call that was not made here.
_OF_A_FETCH = "fetch"


@dataclass
class Rebuilt:
    """How many partitions were reported, by asset, and what was not."""

    reported: dict[KpiAsset, int] = field(default_factory=lambda: dict.fromkeys(KpiAsset, 0))
    rows: int = 0
    clients: int = 0
    failed: int = 0
    in_progress: int = 0
    outside: RowsOutsideGrid = field(default_factory=lambda: RowsOutsideGrid(0, 0))

    @property
    def total(self) -> int:
        """The reported partitions of all three assets."""
        return sum(self.reported.values())


@dataclass(frozen=True)
class GridGap:
    """Rows of closed days, and how many of them the grid of the asset that lacks most shows."""

    rows: int
    shown: int

    def __str__(self) -> str:
        return (
            f"{self.rows:,} rows of past days are stored, and Dagster's grid shows {self.shown:,} "
            "of them: run `kpi dagster rebuild`, which makes no call to Email Bison."
        )


def rebuild(
    app: AppContext,
    dagster_instance: DagsterInstance,
    *,
    dry_run: bool,
    on_client: Callable[[int, int], None] = lambda *_: None,
) -> Rebuilt:
    """Report each stored row's partitions that the grid does not show; with `dry_run`, only count.

    Clients without partitions get them. It may be interrupted, and continues when it is called
    again. `on_client` gets how many of the clients with rows are done.

    Raises:
        KpiError: if another process rebuilds the grid at the same time.
    """
    today = app.today()
    with app.engine.begin() as connection:
        if not dry_run:
            _lock(connection)
            active = [client.workspace for client in active_clients(connection)]
            add_workspaces(dagster_instance, active)
        first = first_date(app.settings, today)
        grid = _Grid(dagster_instance)
        done = Rebuilt(outside=count_outside_grid(connection, first))
        stored = list(read_stored_days(connection, first, today))
        for number, client in enumerate(stored, start=1):
            if not dry_run:
                grid.refresh()
            done.rows += len(client.dates)
            missing = grid.missing(client, done)
            done.clients += any(missing.values())
            for asset, dates in missing.items():
                done.reported[asset] += len(dates)
            if not dry_run and any(missing.values()):
                _report(app, dagster_instance, connection, client.workspace, missing)
            on_client(number, len(stored))
    return done


def grid_gap(app: AppContext, dagster_instance: DagsterInstance) -> GridGap | None:
    """The rows of closed days whose partitions should be green and are not, or None.

    Today's rows come and go with events and runs. Checksums tell whether anything differs, as to
    read 365,000 partitions takes seconds.
    """
    today = app.today()
    first, last = first_date(app.settings, today), today - timedelta(days=1)
    with app.engine.connect() as connection:
        if _agrees(connection, dagster_instance, first, last):
            return None
        stored = list(read_stored_days(connection, first, last))
    grid, found = _Grid(dagster_instance), Rebuilt()
    lacking = dict.fromkeys(KpiAsset, 0)
    for client in stored:
        for asset, dates in grid.missing(client, found).items():
            lacking[asset] += len(dates)
    if not any(lacking.values()):
        return None
    rows = sum(len(client.dates) for client in stored)
    return GridGap(rows, rows - max(lacking.values()))


class _Grid:
    """Which partitions Dagster shows as materialized, as failed and as being filled."""

    def __init__(self, dagster_instance: DagsterInstance) -> None:
        self._storage = dagster_instance.event_log_storage
        self._cursor = self._storage.get_maximum_record_id() or 0
        self._shown: dict[KpiAsset, set[str]] = {}
        self._failed: dict[KpiAsset, set[str]] = {}
        self._in_progress: dict[KpiAsset, set[str]] = {}
        for asset in KpiAsset:
            key = dg.AssetKey(asset.value)
            self._shown[asset] = set(self._storage.get_materialized_partitions(key))
            planned = self._storage.get_latest_asset_partition_materialization_attempts_without_materializations(  # noqa: E501
                key
            )
            runs = {it: run_id for it, (run_id, _) in planned.items()}
            statuses = _statuses(dagster_instance, sorted(set(runs.values())))
            # Of a run that was deleted or canceled, nothing shows.
            self._failed[asset] = {
                it for it, run in runs.items() if statuses.get(run) is DagsterRunStatus.FAILURE
            }
            self._in_progress[asset] = {
                it for it, run in runs.items() if statuses.get(run) in NOT_FINISHED
            }

    def missing(self, client: StoredDays, counts: Rebuilt) -> dict[KpiAsset, list[date]]:
        """The client's stored days that are to be reported, by asset; the others are counted."""
        found: dict[KpiAsset, list[date]] = {}
        for asset in KpiAsset:
            dates = client.dates
            if asset is KpiAsset.FACTS:
                dates = [day for day in dates if day in client.with_facts]
            grey = {str(partition(client.workspace, day)): day for day in dates}
            for key in self._shown[asset].intersection(grey):
                del grey[key]
            failed = self._failed[asset].intersection(grey)
            waiting = self._in_progress[asset].intersection(grey)
            counts.failed += len(failed)
            counts.in_progress += len(waiting)
            found[asset] = [
                day for key, day in grey.items() if key not in failed and key not in waiting
            ]
        return found

    def refresh(self) -> None:
        """Read what was materialized since the last time, by runs beside this process or here."""
        since, self._cursor = self._cursor, self._storage.get_maximum_record_id() or 0
        for asset, shown in self._shown.items():
            key = dg.AssetKey(asset.value)
            shown |= self._storage.get_materialized_partitions(key, after_cursor=since)


def _report(
    app: AppContext,
    dagster_instance: DagsterInstance,
    connection: Connection,
    workspace: str,
    missing: Mapping[KpiAsset, Sequence[date]],
) -> None:
    """Report these partitions of one client, with the metadata that a sync gives them."""
    days = sorted({day for dates in missing.values() for day in dates})
    numbers = read_day_numbers(connection, workspace, days)
    urls = instance_urls(app)
    reports: list[dg.AssetMaterialization] = []
    for asset, dates in missing.items():
        # A row that was deleted meanwhile has no numbers.
        wanted = {day: numbers[day] for day in dates if day in numbers}
        outcome = ClientOutcome(workspace, numbers=wanted)
        reports += [_described(it) for it in materializations(asset, [outcome], urls)]
    report_materializations(dagster_instance, reports)


def _described(report: dg.AssetMaterialization) -> dg.AssetMaterialization:
    metadata = {name: it for name, it in report.metadata.items() if name != _OF_A_FETCH}
    return report.with_metadata(metadata)._replace(description=_DESCRIPTION)


def _statuses(
    dagster_instance: DagsterInstance, run_ids: Sequence[str]
) -> dict[str, DagsterRunStatus]:
    found: dict[str, DagsterRunStatus] = {}
    for start in range(0, len(run_ids), _RUNS_AT_ONCE):
        chunk = list(run_ids[start : start + _RUNS_AT_ONCE])
        runs = dagster_instance.get_runs(RunsFilter(run_ids=chunk))
        found |= {run.run_id: run.status for run in runs}
    return found


def _agrees(
    connection: Connection, dagster_instance: DagsterInstance, first: date, last: date
) -> bool:
    """Whether checksums find each asset's partitions equal to the stored days."""
    storage = dagster_instance.event_log_storage
    if not isinstance(storage, PooledEventLogStorage):
        return False
    stored = read_stored_sums(connection, first, last)
    nothing = (0, 0)
    with storage.index_connection() as events:
        for asset in KpiAsset:
            shown = _shown_sums(events, asset, first, last)
            place = 1 if asset is KpiAsset.FACTS else 0
            if any(shown.get(it, nothing) != sums[place] for it, sums in stored.items()):
                return False
    return True


def _shown_sums(
    events: Connection, asset: KpiAsset, first: date, last: date
) -> dict[str, tuple[int, int]]:
    """The sums of `read_stored_sums`, over the materialized partitions of all clients."""
    table, key = SqlEventLogStorageTable.c, dg.AssetKey(asset.value).to_string()
    wiped_at = (
        select(AssetKeyTable.c.wipe_timestamp)
        .where(AssetKeyTable.c.asset_key == key)
        .scalar_subquery()
    )
    distinct = select(table.partition).where(
        table.asset_key == key,
        table.dagster_event_type == DagsterEventType.ASSET_MATERIALIZATION.value,
        table.partition.is_not(None),
    )
    # Without it, the index alone answers.
    if events.scalar(select(wiped_at)) is not None:
        distinct = distinct.where(table.timestamp > wiped_at)
    keys = distinct.group_by(table.partition).subquery()
    name = cast(keys.c.partition, String)
    day = func.left(name, 10).collate("C")
    found = events.execute(
        select(func.split_part(name, "|", 2), func.count(), partition_sum(name))
        .where(day.between(first.isoformat(), last.isoformat()))
        .group_by(func.split_part(name, "|", 2))
    )
    return {workspace: (count, int(total or 0)) for workspace, count, total in found}


def _lock(connection: Connection) -> None:
    """Hold the lock of this work until the transaction ends.

    Raises:
        KpiError: if another process holds it.
    """
    taken = text("SELECT pg_try_advisory_xact_lock(hashtextextended('kpi:rebuild', 0))")
    if not connection.scalar(taken):
        raise KpiError("Another `kpi dagster rebuild` is at work on this database: wait for it.")
