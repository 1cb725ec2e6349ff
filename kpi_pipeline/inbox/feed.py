"""Ingests what was read in Email Bison's event feed.

An event that a webhook has brought already is the same event, and gains its id and its recorded
time.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from kpi_pipeline.db.coordination.locks import lock_client
from kpi_pipeline.db.day_zone import require_day_zone
from kpi_pipeline.db.events.feed import record_times
from kpi_pipeline.db.events.inbox import find_owners, read_receipts, store_events
from kpi_pipeline.db.recompute import update_rows
from kpi_pipeline.db.server.retry import is_away
from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline.domain.events.event import Event
from kpi_pipeline.errors import KpiError
from kpi_pipeline.inbox.apply import apply_pending
from kpi_pipeline.inbox.ingest import Inbox, of_its_instance

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeedIngested:
    """Numbers of events that are new, and of applied ones whose time the feed corrected."""

    new: int = 0
    moved: int = 0


def ingest_feed(inbox: Inbox, workspace: str, events: Sequence[Event]) -> FeedIngested:
    """Store events of one client's feed, each with its recorded time, and update the client's rows.

    All of it is one transaction under the client's lock. Events that are stored already get the
    recorded time; where that changes their day, or whether the facts hold them, the rows follow.
    With `realtime` off, new events are only stored. Doing it again changes nothing.

    Raises:
        KpiError: if the stored dates are days of another zone by now; nothing is stored then.
        sqlalchemy.exc.SQLAlchemyError: if the database is unreachable.
    """
    earliest: dict[str, tuple[datetime, Event]] = {}
    for event in events:
        checked = of_its_instance(event, inbox.instance_urls)
        at = checked.recorded_at or checked.arrived_at
        key = checked.idempotency_key
        if key not in earliest or at < earliest[key][0]:
            earliest[key] = at, checked
    found = [event for _, event in earliest.values()]
    if not found:
        return FeedIngested()
    with inbox.engine.begin() as connection:
        lock_client(connection, workspace)
        known = read_receipts(connection, earliest.keys())
        moved = _correct(
            connection, inbox, workspace, [it for it in found if it.idempotency_key in known]
        )
        owners = find_owners(connection, found)
        new = [
            (event, owners.get((event.instance, event.bison_workspace_id or 0)))
            for event in found
            if event.idempotency_key not in known
        ]
        store_events(connection, new)
        # Checked afterwards: storing waits while the stored dates are moved to another zone.
        require_day_zone(connection, inbox.day_zone)
        if inbox.realtime:
            apply_pending(connection, [workspace], inbox.day_zone, inbox.now(), due_only=True)
    return FeedIngested(len(new), moved)


def _correct(connection: Connection, inbox: Inbox, workspace: str, events: Sequence[Event]) -> int:
    """Give stored events their recorded times, and recompute the rows of those that moved."""
    if not events:
        return 0
    today = business_date(inbox.now(), inbox.day_zone)
    try:
        with connection.begin_nested():
            moved = record_times(connection, events, inbox.day_zone)
            days = [day for it in moved for day in (it.before, it.after)]
            if days:
                update_rows(
                    connection,
                    [workspace],
                    since=min(days),
                    until=max(days),
                    zone=inbox.day_zone,
                    source="webhook",
                    # An event of today makes today's row.
                    of_events={today}.intersection(it.after for it in moved),
                )
            return len(moved)
    except Exception as error:
        # A full disk, a lost server or another day zone has nothing to do with the client.
        if isinstance(error, KpiError | OperationalError) or is_away(error):
            raise
        # The times stay as they were, and the next reading tries again.
        _log.exception("%s: the times of its events could not be corrected", workspace)
        return 0
