"""Recomputes clients' rows with their pending events."""

import logging
from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import date, datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from kpi_pipeline.db.inbox import note_failure
from kpi_pipeline.db.metrics import publish_metrics, recompute_projections
from kpi_pipeline.db.overlay import affected_dates, mark_applied
from kpi_pipeline.db.retry import is_away
from kpi_pipeline.domain.calendar import business_date

_log = logging.getLogger(__name__)


def apply_pending(
    connection: Connection, workspaces: Collection[str], tz: ZoneInfo, now: datetime
) -> int:
    """Recompute the rows that these clients' pending events change; return how many are applied.

    The caller holds the clients' locks. If computing a client's rows fails, they stay as they were,
    its events keep the reason, and the transaction continues with the other clients.
    """
    today = business_date(now, tz)
    dates = affected_dates(connection, workspaces, today)
    # Most clients share their dates (today alone), and are recomputed together.
    by_dates: dict[tuple[date, ...], list[str]] = defaultdict(list)
    for workspace in sorted(workspaces):
        by_dates[tuple(dates.get(workspace, ()))].append(workspace)
    return sum(
        _apply(connection, together, days, tz, today, now) for days, together in by_dates.items()
    )


def _apply(
    connection: Connection,
    workspaces: Sequence[str],
    dates: Sequence[date],
    tz: ZoneInfo,
    today: date,
    now: datetime,
) -> int:
    try:
        with connection.begin_nested():
            if dates:
                recompute_projections(connection, workspaces, dates, tz, open_day=today)
                publish_metrics(connection, workspaces, dates, source="webhook")
            return mark_applied(connection, workspaces, dates, today=today, now=now)
    except Exception as error:
        # A full disk or a lost server has nothing to do with the events.
        if isinstance(error, OperationalError) or is_away(error):
            raise
        if len(workspaces) > 1:
            return sum(_apply(connection, [it], dates, tz, today, now) for it in workspaces)
        (workspace,) = workspaces
        _log.exception("%s: its pending events could not be applied", workspace)
        reason = f"Computing the rows of {workspace} failed ({type(error).__name__})."
        note_failure(connection, workspaces, reason, now)
        return 0
