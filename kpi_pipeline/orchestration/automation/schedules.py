"""The schedules of the syncs: nightly, and hourly."""

from collections.abc import Callable, Iterator, Sequence
from datetime import date

import dagster as dg
from dagster import RunRequest, ScheduleEvaluationContext, SkipReason

from kpi_pipeline.domain.calendar import business_date, days_between, nightly_dates
from kpi_pipeline.orchestration.assets.specs import REGISTRY
from kpi_pipeline.orchestration.partitions import (
    GRID_ASSETS,
    WORKSPACE,
    block_tags,
    contiguous_groups,
    first_date,
)
from kpi_pipeline.settings import Settings


def build_sync_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """`daily_kpi_sync`, and `hourly_refresh` unless KPI_HOURLY_REFRESH is off.

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
    def daily_kpi_sync(context: ScheduleEvaluationContext) -> Iterator[RunRequest]:
        yield RunRequest(
            run_key=f"{context.scheduled_execution_time.isoformat()} {REGISTRY.to_user_string()}",
            asset_selection=[REGISTRY],
        )
        yield from _requests(context, settings, nightly_dates)

    @dg.schedule(
        name="hourly_refresh",
        cron_schedule="30 * * * *",
        execution_timezone=settings.timezone.key,
        target=GRID_ASSETS,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Every hour: all active clients × yesterday and today.",
    )
    def hourly_refresh(context: ScheduleEvaluationContext) -> list[RunRequest] | SkipReason:
        requests = _requests(context, settings, lambda today: nightly_dates(today, closed_days=1))
        # Dagster accepts a reason or requests: a tick with both is an error.
        return list(requests) or SkipReason(
            "There are no active clients: `kpi clients import FILE.csv` adds them."
        )

    return [daily_kpi_sync, hourly_refresh] if settings.hourly_refresh else [daily_kpi_sync]


def _requests(
    context: ScheduleEvaluationContext,
    settings: Settings,
    dates_of: Callable[[date], tuple[date, date]],
) -> Iterator[RunRequest]:
    """One run for each group of contiguous clients.

    The dates come from the tick, never from the clock: a tick made up late covers its own days.
    """
    tick = context.scheduled_execution_time
    today = business_date(tick, settings.day_zone)
    grid_start = first_date(settings, today)
    dates = [day for day in days_between(*dates_of(today)) if day >= grid_start]
    if not dates:
        return
    order: Sequence[str] = context.instance.get_dynamic_partitions(WORKSPACE)
    for group in contiguous_groups(order, order, settings.workspaces_per_run):
        yield RunRequest(
            run_key=f"{tick.isoformat()} {group[0]}..{group[-1]}",
            asset_selection=GRID_ASSETS,
            # A run of checks follows when all syncs have ended.
            asset_check_keys=[],
            tags=block_tags(group, dates),
        )
