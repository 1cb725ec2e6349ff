"""Every day: the bodies of old events are deleted; what the numbers are made of stays."""

import dagster as dg

from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.settings import Settings


def build_event_retention(settings: Settings) -> dg.ScheduleDefinition:
    """The daily schedule `reduce_old_events`, with its job."""
    days = settings.event_retention_days

    @dg.op(description="Deletes the bodies of old events: names, addresses, the text of mails.")
    def delete_old_bodies(context: dg.OpExecutionContext, app: AppResource) -> None:
        from kpi_pipeline.inbox.ingest import inbox_of
        from kpi_pipeline.inbox.replay import purge

        try:
            with app.opened() as opened:
                reduced = purge(inbox_of(opened, realtime=False), older_than_days=days)
        except KpiError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        context.log.info(f"The bodies of {reduced} events older than {days} days are deleted.")

    # A named job, but one without assets: a backfill from its page has nothing to fill.
    @dg.job(description="Deletes the bodies of old events.")
    def reduce_old_events() -> None:
        delete_old_bodies()

    return dg.ScheduleDefinition(
        name="reduce_old_events",
        job=reduce_old_events,
        cron_schedule="45 3 * * *",
        execution_timezone=settings.timezone.key,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Every night: deletes the bodies of events that came in more than {days} days "
        "ago, and with them all personal data; what the numbers are made of stays.",
    )
