"""The sensor that brings changed rows to Dagster's page, and the agency's totals after each sync.

A run logs the materializations of its own dates. Rows that webhooks, the event feed, files, imports
or `kpi recompute` changed, and those beyond its dates that a sync changed, are reported here, as
materializations of `client_metrics` that belong to no run. The numbers of `kpi_projections` and
`raw_bison_stats` are not on their partitions, or are what a run fetched: neither is reported.

A trigger lists the rows that change. Each is compared with the numbers of its partition's latest
materialization, which tells the rows that a sync has reported from the others, and stays on the
list until both agree.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg
from dagster import DagsterEventType, DagsterInstance, DagsterRunStatus, SensorEvaluationContext

from kpi_pipeline.checks.automation import SYNC_SCHEDULES
from kpi_pipeline.orchestration.assets.agency_totals import has_numbers, totals_materialization
from kpi_pipeline.orchestration.assets.partition_metadata import (
    instance_urls,
    partition,
    row_materialization,
    shown_numbers,
)
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.assets.specs import AGENCY_TOTALS
from kpi_pipeline.orchestration.partitions import (
    GRID_ASSETS,
    WORKSPACE,
    block_from_tags,
    first_date,
)
from kpi_pipeline.orchestration.runs import FINISHED, PARTITION, SCHEDULE
from kpi_pipeline.sync.scope import KpiAsset

if TYPE_CHECKING:
    from kpi_pipeline.app import AppContext
    from kpi_pipeline.db.changed_rows import ChangedRow

_METRICS = dg.AssetKey(KpiAsset.METRICS.value)
# A row is reported no more often than this: with the interval below, five minutes late at most.
REPORT_EVERY = timedelta(minutes=4, seconds=15)
# With a run of its client under way, a row waits for the run's own report for this long at most.
_WAIT_FOR_RUN = timedelta(minutes=4)
# The daemon writes reports one by one, each in 2 to 9 ms. 200 in each evaluation are 2,000 in five
# minutes; the next evaluations report the rest.
MAX_ROWS = 200
_INTERVAL_SECONDS = 30
# Dagster ends an evaluation after 60 s; opening the app has waited for 30 s at most.
_RETRY_SECONDS = 15.0
_AT_WORK = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
# The cursor after totals before any scheduled sync: without them, the page of agency_totals would
# be empty until the first one.
_FIRST_NUMBERS = "first numbers"
# The same on all runs that one evaluation of a schedule requests.
_TICK = "dagster/tick"


def build_report_sensor() -> dg.SensorDefinition:
    """The sensor `report_changed_rows`."""

    @dg.sensor(
        name="report_changed_rows",
        # It requests no runs: the pages of these assets name what keeps them up to date.
        target=[_METRICS, AGENCY_TOTALS],
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports rows of client_metrics that webhooks, the event feed, files, imports "
        "or a recompute changed as materializations of their partitions: each at most five minutes "
        f"after its change, at most once in 4¼ minutes, and {MAX_ROWS} in one evaluation. After "
        "each scheduled sync, and once there are numbers, it reports agency_totals.",
    )
    def report_changed_rows(context: SensorEvaluationContext, app: AppResource) -> dg.SensorResult:
        from kpi_pipeline.db.server.retry import retry_on_disconnect

        with app.opened() as opened:
            # All of it can be done twice.
            evaluation = partial(evaluate_reports, context.instance, opened, context.cursor)
            return retry_on_disconnect(evaluation, seconds=_RETRY_SECONDS)

    return report_changed_rows


def evaluate_reports(
    dagster_instance: DagsterInstance, app: "AppContext", cursor: str | None
) -> dg.SensorResult:
    """One evaluation of the sensor; its cursor names the sync that was summed up last."""
    reports = _changed_rows(dagster_instance, app)
    sync = _ended_sync(dagster_instance)
    if sync is None and cursor is None and not _runs_at_work(dagster_instance):
        sync = _FIRST_NUMBERS
    if sync is not None and sync != cursor:
        totals = totals_materialization(app)
        if sync != _FIRST_NUMBERS or has_numbers(totals):
            reports.append(totals)
            cursor = sync
    return dg.SensorResult(
        asset_events=reports,
        cursor=cursor,
        skip_reason=None if reports else "Dagster's page agrees with client_metrics.",
    )


@dataclass
class _Sorted:
    """The listed rows that are due, by what is done with them."""

    # Dagster's page shows the row as it is, or has no partition for it.
    settled: list["ChangedRow"] = field(default_factory=list)
    # They are checked again later: they are reported now, or can't be now.
    open: list["ChangedRow"] = field(default_factory=list)
    reports: list[dg.AssetMaterialization] = field(default_factory=list)


def _changed_rows(
    dagster_instance: DagsterInstance, app: "AppContext"
) -> list[dg.AssetMaterialization]:
    """The materializations of the changed rows that are due."""
    from kpi_pipeline.db.changed_rows import (
        delete_changed_rows,
        note_checked,
        read_changed_rows,
    )

    now, order = app.now(), dagster_instance.get_dynamic_partitions(WORKSPACE)
    # Read before the rows: a run that begins after this reads the rows after this.
    in_runs = _clients_in_runs(dagster_instance, order)
    with app.engine.connect() as connection:
        due = read_changed_rows(
            connection,
            MAX_ROWS,
            checked_before=now - REPORT_EVERY,
            in_runs=in_runs,
            changed_before=now - _WAIT_FOR_RUN,
        )
    if not due:
        return []
    done = _sort(dagster_instance, app, due, set(order), in_runs)
    with app.engine.begin() as connection:
        delete_changed_rows(connection, done.settled)
        note_checked(connection, done.open, now)
    return done.reports


def _sort(
    dagster_instance: DagsterInstance,
    app: "AppContext",
    due: Sequence["ChangedRow"],
    clients: Collection[str],
    in_runs: Collection[str],
) -> _Sorted:
    from kpi_pipeline.db.metrics import read_numbers_of

    with app.engine.connect() as connection:
        stored = read_numbers_of(connection, [(it.workspace, it.metric_date) for it in due])
    today, urls = app.today(), instance_urls(app)
    grid_start = first_date(app.settings, today)
    page = _Page(dagster_instance, {partition(*row) for row in stored})
    done = _Sorted()
    for row in due:
        numbers = stored.get((row.workspace, row.metric_date))
        in_grid = row.workspace in clients and grid_start <= row.metric_date <= today
        if numbers is None or not in_grid:
            done.settled.append(row)
            continue
        report = row_materialization(numbers, urls)
        key = partition(row.workspace, row.metric_date)
        if page.shows(key, report):
            # The run may report what it read before the change.
            (done.open if row.workspace in in_runs else done.settled).append(row)
            continue
        done.open.append(row)
        if not page.is_red(key):
            done.reports.append(report)
    return done


class _Page:
    """What Dagster's page shows of some partitions of client_metrics."""

    def __init__(self, dagster_instance: DagsterInstance, partitions: set[str]) -> None:
        self._instance = dagster_instance
        self._latest = self._latest_ids(DagsterEventType.ASSET_MATERIALIZATION, partitions)
        self._planned = self._latest_ids(DagsterEventType.ASSET_MATERIALIZATION_PLANNED, partitions)
        self._numbers = self._read_numbers()

    def shows(self, key: str, report: dg.AssetMaterialization) -> bool:
        """Whether the partition's latest materialization has these numbers."""
        return key in self._numbers and self._numbers[key] == shown_numbers(report)

    def is_red(self, key: str) -> bool:
        """Whether the partition's last run failed: a report would show it in green."""
        if self._planned.get(key, 0) <= self._latest.get(key, 0):
            return False
        storage = self._instance.event_log_storage
        planned = storage.get_latest_planned_materialization_info(_METRICS, key)
        run = None if planned is None else self._instance.get_run_by_id(planned.run_id)
        return run is not None and run.status is DagsterRunStatus.FAILURE

    def _latest_ids(self, kind: DagsterEventType, partitions: set[str]) -> dict[str, int]:
        if not partitions:
            return {}
        storage = self._instance.event_log_storage
        return dict(storage.get_latest_storage_id_by_partition(_METRICS, kind, partitions))

    def _read_numbers(self) -> dict[str, str | None]:
        if not self._latest:
            return {}
        chosen = dg.AssetRecordsFilter(_METRICS, storage_ids=list(self._latest.values()))
        records = self._instance.fetch_materializations(chosen, limit=len(self._latest)).records
        events = [it for record in records if (it := record.asset_materialization)]
        return {str(it.partition): shown_numbers(it) for it in events}


def _clients_in_runs(dagster_instance: DagsterInstance, order: Sequence[str]) -> set[str]:
    """The clients whose partitions a run fills now; a queued run reads the rows later."""
    found: set[str] = set()
    for run in _runs_at_work(dagster_instance):
        block = block_from_tags(run.tags, order)
        if block is not None:
            found.update(block.workspaces)
        elif PARTITION in run.tags:
            found.add(run.tags[PARTITION].split("|", 1)[-1])
    return found


def _runs_at_work(dagster_instance: DagsterInstance) -> list[dg.DagsterRun]:
    """The runs that fill the grid now."""
    runs = dagster_instance.get_runs(filters=dg.RunsFilter(statuses=_AT_WORK))
    return [it for it in runs if _fills_grid(it)]


def _fills_grid(run: dg.DagsterRun) -> bool:
    return any(key in GRID_ASSETS for key in run.asset_selection or ())


def _ended_sync(dagster_instance: DagsterInstance) -> str | None:
    """The latest scheduled sync, if all its runs have ended: a night of many clients has several.

    Its runs carry the same tick.
    """
    newest = _sync_runs(dagster_instance, {SCHEDULE: list(SYNC_SCHEDULES)}, limit=2)
    if not newest:
        return None
    schedule, tick = newest[0].tags[SCHEDULE], newest[0].tags.get(_TICK, newest[0].run_id)
    runs = _sync_runs(dagster_instance, {SCHEDULE: schedule, _TICK: tick}) or newest[:1]
    return f"{schedule} {tick}" if all(run.status in FINISHED for run in runs) else None


def _sync_runs(
    dagster_instance: DagsterInstance, tags: dict[str, str | list[str]], limit: int | None = None
) -> list[dg.DagsterRun]:
    """The runs with these tags that fill the grid, newest first."""
    runs = dagster_instance.get_runs(filters=dg.RunsFilter(tags=tags), limit=limit)
    return [it for it in runs if _fills_grid(it)]
