"""Every night: deletes the bodies of old events; the numbers keep what they are computed from."""

import dagster as dg

from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.settings import Settings


def build_event_retention_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """The daily schedule `delete_old_event_bodies`, with its job."""
    days = settings.event_retention_days

    @dg.op(description="Deletes the bodies of old events: names, addresses, the text of emails.")
    def delete_bodies(context: dg.OpExecutionContext, app: AppResource) -> None:
        from kpi_pipeline.inbox.ingest import inbox_of
        from kpi_pipeline.inbox.replay import purge

        with app.opened() as opened:
            deleted = purge(inbox_of(opened, realtime=False), older_than_days=days)
        context.log.info(f"The bodies of {deleted} events older than {days} days are deleted.")

    # A named job without assets: a backfill from its page has nothing to fill.
    @dg.job(description="Deletes the bodies of old events.")
    def delete_old_event_bodies() -> None:
        delete_bodies()

    return dg.ScheduleDefinition(
        name="delete_old_event_bodies",
        job=delete_old_event_bodies,
        cron_schedule="45 3 * * *",
        execution_timezone=settings.timezone.key,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Every night: deletes the bodies of events that arrived more than {days} days "
        "ago, and with them all personal data. The numbers keep what they are computed from.",
    )
