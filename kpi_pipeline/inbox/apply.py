"""Recomputes clients' rows with their pending events."""

import logging
from collections import defaultdict
from collections.abc import Collection
from datetime import date, datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from kpi_pipeline.db.events.inbox import note_failure
from kpi_pipeline.db.events.overlay import mark_applied
from kpi_pipeline.db.recompute import update_rows
from kpi_pipeline.db.server.retry import is_away
from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline.errors import KpiError

_log = logging.getLogger(__name__)


def apply_pending(
    connection: Connection,
    workspaces: Collection[str],
    zone: ZoneInfo,
    now: datetime,
    *,
    due_only: bool = False,
) -> set[int]:
    """Apply these clients' pending events, and recompute the rows that they affect; return the ids.

    The caller holds the clients' locks; `zone` is that of Email Bison's days. If computing a
    client's rows fails, they stay as they were, its events keep the reason, and the transaction
    continues with the other clients. With `due_only`, clients whose last try failed are left out
    until they are due for another.

    Raises:
        KpiError: if the stored dates are days of another zone.
    """
    if not workspaces:
        return set()
    try:
        with connection.begin_nested():
            return apply_or_fail(connection, workspaces, zone, now, due_only=due_only)
    except Exception as error:
        if not is_of_the_rows(error):
            raise
        if len(workspaces) > 1:
            one_by_one = (
                apply_pending(connection, [it], zone, now, due_only=due_only)
                for it in sorted(workspaces)
            )
            return set().union(*one_by_one)
        (workspace,) = workspaces
        _log.exception("%s: its pending events could not be applied", workspace)
        reason = f"Computing the rows of {workspace} failed ({type(error).__name__})."
        note_failure(connection, workspaces, reason, now)
        return set()


def is_of_the_rows(error: Exception) -> bool:
    """Whether the error is one of computing rows, of which one of the events may be the reason.

    A full disk, a lost server or a changed day zone has nothing to do with the events.
    """
    return not isinstance(error, KpiError | OperationalError) and not is_away(error)


def apply_or_fail(
    connection: Connection,
    workspaces: Collection[str],
    zone: ZoneInfo,
    now: datetime,
    *,
    due_only: bool = False,
) -> set[int]:
    """As `apply_pending`, but an error ends the transaction: nothing is noted, or stored."""
    applied = mark_applied(connection, workspaces, zone, now, due_only=due_only)
    today = business_date(now, zone)
    # Most clients share their dates (today alone), and are recomputed together.
    together: defaultdict[tuple[date, date, bool], list[str]] = defaultdict(list)
    for it in applied:
        together[min(it.dates), max(it.dates), today in it.dates].append(it.workspace)
    for (since, until, makes_today), group in together.items():
        update_rows(
            connection,
            group,
            since=since,
            until=until,
            zone=zone,
            source="webhook",
            # Today's row may exist with events alone.
            of_events=[today] if makes_today else [],
        )
    return {event_id for it in applied for event_id in it.events}
