"""The schedules of the syncs: every night, and every KPI_REFRESH_MINUTES of the day."""

from collections.abc import Callable, Iterator, Sequence
from datetime import date

import dagster as dg
from dagster import RunRequest, ScheduleEvaluationContext, SkipReason
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.checks.automation import SYNC_SCHEDULES
from kpi_pipeline.domain.calendar import business_date, days_between, nightly_dates
from kpi_pipeline.domain.formatting import counted, listed
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.assets.specs import REGISTRY
from kpi_pipeline.orchestration.partitions import (
    GRID_ASSETS,
    WORKSPACE,
    block_tags,
    contiguous_groups,
    first_date,
)
from kpi_pipeline.orchestration.runs import (
    INTRADAY_REFRESH,
    NOT_FINISHED,
    PRIORITY,
    RUN_KEY,
    SCHEDULE,
    SYNC_PRIORITY,
)
from kpi_pipeline.settings import Settings

_HOUR = 60


def build_sync_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """`daily_kpi_sync`, and `intraday_refresh` unless KPI_REFRESH_MINUTES is off.

    They have no named jobs: a backfill from the page of a job fills the wrong partitions (dagster
    issue 28861). Ticks that were missed while Dagster was down are made up later.
    """

    @dg.schedule(
        name="daily_kpi_sync",
        cron_schedule="1 0 * * *",
        execution_timezone=settings.timezone.key,
        target=[REGISTRY, *GRID_ASSETS],
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Every night: all active clients × the last 7 closed days and today. Bison "
        "revises recent days, so they are fetched and recomputed.",
    )
    def daily_kpi_sync(
        context: ScheduleEvaluationContext, app: AppResource
    ) -> Iterator[RunRequest]:
        yield RunRequest(
            run_key=f"{context.scheduled_execution_time.isoformat()} {REGISTRY.to_user_string()}",
            asset_selection=[REGISTRY],
            tags={PRIORITY: SYNC_PRIORITY},
        )
        yield from _requests(context, app, settings, nightly_dates)

    if settings.refresh_minutes is None:
        return [daily_kpi_sync]
    return [daily_kpi_sync, _intraday_refresh(settings, settings.refresh_minutes)]


def _intraday_refresh(settings: Settings, minutes: int) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=INTRADAY_REFRESH,
        cron_schedule=intraday_cron(minutes),
        execution_timezone=settings.timezone.key,
        target=GRID_ASSETS,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Every {counted(minutes, 'minute')}: all active clients × yesterday and "
        "today, one call each, and once an hour today's sending plans. Skipped while a sync of "
        "these schedules is queued or in progress.",
    )
    def intraday_refresh(
        context: ScheduleEvaluationContext, app: AppResource
    ) -> list[RunRequest] | SkipReason:
        if unfinished := _unfinished_syncs(context):
            return SkipReason(
                f"{counted(len(unfinished), 'run')} of {listed(sorted(set(unfinished)))} "
                f"{'is' if len(unfinished) == 1 else 'are'} queued or in progress. The next "
                "refresh fetches the same days."
            )
        requests = _requests(
            context, app, settings, lambda today: nightly_dates(today, closed_days=1)
        )
        # Dagster accepts a reason or requests: a tick with both is an error.
        return list(requests) or SkipReason(
            "There are no active clients: `kpi clients import FILE.csv` adds them."
        )

    return intraday_refresh


def intraday_cron(minutes: int) -> str:
    """The cron expression of the refresh: its ticks lie amid the intervals of the hour or day.

    At :07, :22, … it meets neither the nightly sync nor the checks of every quarter of an hour.
    """
    if minutes >= _HOUR:
        return "30 * * * *" if minutes == _HOUR else f"30 */{minutes // _HOUR} * * *"
    return f"{minutes // 2}-59/{minutes} * * * *"


def _unfinished_syncs(context: ScheduleEvaluationContext) -> list[str]:
    """The schedule of each sync that is queued or in progress, other than those of this tick.

    A tick whose evaluation was interrupted is evaluated again, and requests what it did not yet.
    """
    filters = dg.RunsFilter(statuses=NOT_FINISHED, tags={SCHEDULE: list(SYNC_SCHEDULES)})
    tick = context.scheduled_execution_time.isoformat()
    return [
        run.tags[SCHEDULE]
        for run in context.instance.get_runs(filters=filters)
        if not run.tags.get(RUN_KEY, "").startswith(tick)
        and not set(GRID_ASSETS).isdisjoint(run.asset_selection or ())
    ]


def _requests(
    context: ScheduleEvaluationContext,
    app: AppResource,
    settings: Settings,
    dates_of: Callable[[date], tuple[date, date]],
) -> Iterator[RunRequest]:
    """One run for each group of contiguous active clients.

    The dates come from the tick, never from the clock: a tick made up late covers its own days.
    """
    tick = context.scheduled_execution_time
    today = business_date(tick, settings.day_zone)
    grid_start = first_date(settings, today)
    dates = [day for day in days_between(*dates_of(today)) if day >= grid_start]
    if not dates:
        return
    order: Sequence[str] = context.instance.get_dynamic_partitions(WORKSPACE)
    active = _active(context, app, order)
    for group in contiguous_groups(order, active, settings.workspaces_per_run):
        yield RunRequest(
            run_key=f"{tick.isoformat()} {group[0]}..{group[-1]}",
            asset_selection=GRID_ASSETS,
            # A run of checks follows when all syncs have ended.
            asset_check_keys=[],
            tags={**block_tags(group, dates), PRIORITY: SYNC_PRIORITY},
        )


def _active(
    context: ScheduleEvaluationContext, app: AppResource, order: Sequence[str]
) -> Sequence[str]:
    """The partitions of active clients: those of others may stay for some days."""
    try:
        active = app.active_workspaces()
    except (dg.Failure, DBAPIError):
        # The night is not to be missed for that: a run skips inactive clients, too.
        context.log.warning("The clients can't be read: the tick covers all partitions.")
        return order
    return [it for it in order if it in active]
