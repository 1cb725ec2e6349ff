"""Applies stored events that do not count yet, however many."""

import logging
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import partial

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from kpi_pipeline.db.coordination.locks import lock_client
from kpi_pipeline.db.day_zone import require_day_zone
from kpi_pipeline.db.events.inbox import date_events, find_owners, match_events
from kpi_pipeline.db.events.stored import (
    Chosen,
    StoredEvent,
    choose_events,
    count_applied,
    last_event_id,
    mark_pending_again,
    read_stored,
    rewrite_event,
    workspaces_with_pending,
)
from kpi_pipeline.db.recompute import update_rows
from kpi_pipeline.db.server.retry import is_away
from kpi_pipeline.domain.events.event import EventStatus
from kpi_pipeline.domain.events.parse import parse_event
from kpi_pipeline.errors import KpiError
from kpi_pipeline.inbox.apply import apply_pending
from kpi_pipeline.inbox.ingest import Inbox, of_its_instance

NOT_COUNTED_YET = (
    EventStatus.RECEIVED,
    EventStatus.SET_ASIDE,
    EventStatus.UNMATCHED,
    EventStatus.INVALID,
)
# A newer version of the code may be able to parse their bodies.
_PARSED_AGAIN = (EventStatus.INVALID, EventStatus.IGNORED)
_BATCH = 5_000
# A body has up to a mebibyte.
_BODIES = 50

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReplayReport:
    """Numbers of events in the replay, of those that count now, and of those that still don't."""

    events: int
    applied: int
    left: int


def match_and_date(inbox: Inbox) -> int:
    """Assign unmatched events to clients that exist by now, and date those of `increment_metric`.

    Returns how many events that changed.
    """
    with inbox.engine.begin() as connection:
        changed = match_events(connection) + date_events(connection, inbox.day_zone)
        require_day_zone(connection, inbox.day_zone)
        return changed


def replay(
    inbox: Inbox,
    *,
    since: datetime | None = None,
    workspaces: Collection[str] = (),
    statuses: Collection[EventStatus] = NOT_COUNTED_YET,
) -> ReplayReport:
    """Parse stored events again and recompute the rows of their clients, one client at a time.

    Takes events that arrived at `since` or later, of these `workspaces` (or of all), and in these
    `statuses`. An event keeps its business date, and one that counts already is not counted twice,
    so repeating a replay changes nothing. Events that were set aside get another five tries. It
    remembers eight bytes for each event.
    """
    match_and_date(inbox)
    with inbox.engine.begin() as connection:
        last = last_event_id(connection)
    select = partial(choose_events, since=since, workspaces=workspaces, statuses=statuses)
    mark = partial(mark_pending_again, since=since, statuses=statuses, until=last)
    # Compact: a list of as many numbers takes five times the space.
    ids = array("q")
    pending: set[str] = set()
    counted = _Counted()
    after = 0
    while True:
        with inbox.engine.begin() as connection:
            chosen = select(connection, after=after, until=last, most=_BATCH)
        if not chosen:
            break
        after = chosen[-1].id
        ids.extend(it.id for it in chosen)
        counted.add(chosen)
        _parse_again(inbox, [it.id for it in chosen if it.status in _PARSED_AGAIN])
        with inbox.engine.begin() as connection:
            pending |= workspaces_with_pending(connection, [it.id for it in chosen])
    for workspace in sorted(pending.union(counted.first)):
        with inbox.engine.begin() as connection:
            lock_client(connection, workspace)
            mark(connection, workspace)
            apply_pending(connection, [workspace], inbox.day_zone, inbox.now())
            counted.recompute(connection, inbox, workspace)
    applied = 0
    for part in _parts(ids, _BATCH):
        with inbox.engine.begin() as connection:
            applied += count_applied(connection, part)
    return ReplayReport(len(ids), applied, len(ids) - applied)


@dataclass
class _Counted:
    """The first and last day of the chosen events that count already, by client."""

    first: dict[str, date] = field(default_factory=dict)
    last: dict[str, date] = field(default_factory=dict)

    def add(self, chosen: Sequence[Chosen]) -> None:
        for it in chosen:
            if it.status is EventStatus.APPLIED and it.workspace and it.business_date:
                first = self.first.get(it.workspace, it.business_date)
                last = self.last.get(it.workspace, it.business_date)
                self.first[it.workspace] = min(first, it.business_date)
                self.last[it.workspace] = max(last, it.business_date)

    def recompute(self, connection: Connection, inbox: Inbox, workspace: str) -> None:
        """Recompute the rows that these events of the client affect."""
        if workspace not in self.first:
            return
        try:
            with connection.begin_nested():
                update_rows(
                    connection,
                    [workspace],
                    since=self.first[workspace],
                    until=self.last[workspace],
                    zone=inbox.day_zone,
                    source="webhook",
                )
        except Exception as error:
            # A full disk, a lost server or another day zone has nothing to do with the client.
            if isinstance(error, KpiError | OperationalError) or is_away(error):
                raise
            _log.exception("%s: its rows could not be computed again", workspace)


def _parts(ids: Sequence[int], size: int) -> Iterator[list[int]]:
    return (list(ids[start : start + size]) for start in range(0, len(ids), size))


def _parse_again(inbox: Inbox, ids: Sequence[int]) -> None:
    for part in _parts(ids, _BODIES):
        with inbox.engine.begin() as connection:
            for event in read_stored(connection, part):
                if event.body is not None:
                    _parse_one_again(connection, inbox, event)
            require_day_zone(connection, inbox.day_zone)


def _parse_one_again(connection: Connection, inbox: Inbox, stored: StoredEvent) -> None:
    event = of_its_instance(
        parse_event(
            stored.body or b"",
            instance=stored.instance,
            source=stored.source,
            arrived_at=stored.arrived_at,
            tz=inbox.day_zone,
        ),
        inbox.instance_urls,
    )
    if event.status is EventStatus.RECEIVED:
        owners = find_owners(connection, [event])
        owner = owners.get((event.instance, event.bison_workspace_id or 0))
        rewrite_event(connection, stored.id, event, owner)
