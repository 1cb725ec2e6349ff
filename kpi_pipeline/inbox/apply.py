"""Works the rows of a client out anew with the events that wait for it."""

import logging
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from kpi_pipeline.business_days import business_date
from kpi_pipeline.warehouse.counted_events import affected_dates, mark_applied
from kpi_pipeline.warehouse.inbox import note_failure
from kpi_pipeline.warehouse.metric_rows import publish_metrics, recompute_projections

_log = logging.getLogger(__name__)


def apply_waiting(connection: Connection, workspace: str, tz: ZoneInfo, now: datetime) -> int:
    """Recompute the rows that the client's waiting events change; return how many that settles.

    The caller holds the client's lock. If it fails, the rows stay as they were, the events stay
    stored with the reason, and the transaction goes on.
    """
    today = business_date(now, tz)
    try:
        with connection.begin_nested():
            dates = affected_dates(connection, [workspace], today).get(workspace, [])
            if dates:
                recompute_projections(connection, workspace, dates, tz, open_day=today)
                publish_metrics(connection, workspace, dates, source="webhook")
            return mark_applied(connection, workspace, dates, today=today, now=now)
    except Exception as error:  # noqa: BLE001 - whatever it is, the event is kept
        _log.exception("%s: the events that wait could not be applied", workspace)
        reason = f"Working out the rows of {workspace} failed ({type(error).__name__})."
        note_failure(connection, [workspace], reason, now)
        return 0
