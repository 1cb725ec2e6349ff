"""Every night: deletes old bodies and files of events, and events that raise no number any more."""

import dagster as dg

from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.settings import Settings


def build_event_retention_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """The daily schedule `delete_old_event_bodies`, with its job."""
    days = settings.event_retention_days

    @dg.op(description="Deletes the bodies of old events: names, addresses, the text of emails.")
    def delete_bodies(context: dg.OpExecutionContext, app: AppResource) -> None:
        from kpi_pipeline.inbox.ingest import inbox_of
        from kpi_pipeline.inbox.retention import apply_retention

        with app.opened() as opened:
            inbox = inbox_of(opened, realtime=False)
            deleted = apply_retention(inbox, opened.settings.drop_dir, days=days)
        context.log.info(deleted.sentence(days))

    # A named job without assets: a backfill from its page has nothing to fill.
    @dg.job(description="Deletes the bodies and files of old events, and finished events.")
    def delete_old_event_bodies() -> None:
        delete_bodies()

    return dg.ScheduleDefinition(
        name="delete_old_event_bodies",
        job=delete_old_event_bodies,
        cron_schedule="45 3 * * *",
        execution_timezone=settings.timezone.key,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Every night: deletes the bodies and files of events that arrived more than "
        f"{days} days ago, and with them all personal data; and events of a day before last month "
        "that raise no number any more. The numbers stay.",
    )
