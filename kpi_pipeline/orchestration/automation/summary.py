"""The schedule `daily_summary`: yesterday's numbers, to the receivers of alerts."""

from dataclasses import replace
from datetime import date, timedelta
from typing import TYPE_CHECKING

import dagster as dg
from dagster import RunRequest, ScheduleEvaluationContext

from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline.domain.formatting import counted
from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.nightly_sync import after_due_sync
from kpi_pipeline.orchestration.runs import AFTER_SYNC_OF, CHECKS_PRIORITY, PRIORITY, SUMMARY_OF
from kpi_pipeline.settings import Settings

if TYPE_CHECKING:
    from kpi_pipeline.app import AppContext

# A failing receiver is retried for as long as a restart or a deployment of it takes.
_PAUSES_SECONDS = (15.0, 60.0, 120.0, 300.0)


def build_summary_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """The schedule with its job `send_summary`; none where KPI_SUMMARY_AT is off."""
    at = settings.summary_at
    if at is None:
        return []

    @dg.op(description="Sends the summary of yesterday, or of the date in the tag kpi/summary_of.")
    def send_summary_op(context: dg.OpExecutionContext, app: AppResource) -> None:
        with app.opened() as opened:
            tagged = context.run.tags.get(SUMMARY_OF)
            yesterday = opened.today() - timedelta(days=1)
            day = date.fromisoformat(tagged) if tagged else yesterday
            _, note = after_due_sync(context, opened)
            context.log.info(send_summary(opened, day, note))

    # A named job without assets: a backfill from its page has nothing to fill.
    @dg.job(name="send_summary", description="Sends the daily summary.")
    def job() -> None:
        send_summary_op()

    @dg.schedule(
        name="daily_summary",
        job=job,
        cron_schedule=f"{at.minute} {at.hour} * * *",
        execution_timezone=settings.timezone.key,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Every day: yesterday's emails, replies and positive replies by client, "
        "and which clients are above the month's target, on track and behind.",
    )
    def daily_summary(context: ScheduleEvaluationContext) -> RunRequest:
        # The date comes from the tick: one that is made up late reports its own yesterday.
        tick = context.scheduled_execution_time
        yesterday = business_date(tick, settings.day_zone) - timedelta(days=1)
        return RunRequest(
            run_key=yesterday.isoformat(),
            tags={
                SUMMARY_OF: yesterday.isoformat(),
                AFTER_SYNC_OF: tick.isoformat(),
                PRIORITY: CHECKS_PRIORITY,
            },
        )

    return [daily_summary]


def send_summary(app: "AppContext", day: date, note: str = "") -> str:
    """Send the summary of `day` to each receiver; return a sentence that says to how many.

    `note` is its first line, such as that a sync has not ended.

    Raises:
        KpiError: naming the receivers that could not be reached.
    """
    from kpi_pipeline.alerts.delivery import deliver, receivers_of
    from kpi_pipeline.alerts.summary import read_summary, summary_text

    receivers = receivers_of(app.settings.alert_urls)
    if not receivers:
        return "KPI_ALERT_URLS names no receivers; `kpi summary` prints the summary."
    with app.engine.connect() as connection:
        message = summary_text(read_summary(connection, day), app.timezone, app.day_zone)
    if note:
        message = replace(message, body=f"{note}\n{message.body}")
    missed = deliver(receivers, message, _PAUSES_SECONDS)
    everybody = counted(len(receivers), "receiver")
    if missed:
        raise KpiError(
            f"{len(missed)} of {everybody} of KPI_ALERT_URLS did not accept the "
            f"summary: {', '.join(missed)}. `kpi alerts test` tries them; the others have it."
        )
    return f"The summary of {day} went to {everybody}."
