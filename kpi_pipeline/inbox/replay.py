"""Works events into the numbers that did not get there by themselves; and forgets old bodies."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from kpi_pipeline.db.inbox import (
    StoredEvent,
    clients_that_wait,
    date_events,
    drop_bodies,
    find_owners,
    let_wait_again,
    match_events,
    read_stored,
    rewrite_event,
)
from kpi_pipeline.db.locks import lock_client
from kpi_pipeline.domain.events.event import EventStatus
from kpi_pipeline.domain.events.parse import understand
from kpi_pipeline.inbox.apply import apply_pending
from kpi_pipeline.inbox.ingest import Inbox, of_its_instance

NOT_COUNTED_YET = (
    EventStatus.RECEIVED,
    EventStatus.SET_ASIDE,
    EventStatus.UNMATCHED,
    EventStatus.INVALID,
)
# Their bodies may mean something to a newer version of the code.
_READ_AGAIN = (EventStatus.INVALID, EventStatus.IGNORED)
_AT_ONCE = 500


@dataclass(frozen=True)
class ReplayReport:
    """How many events were looked at, how many count by now, and how many still don't."""

    events: int
    applied: int
    left: int


def match_and_date(inbox: Inbox) -> int:
    """Hand events to clients that exist by now, and date those of `increment_metric`; how many."""
    with inbox.engine.begin() as connection:
        return match_events(connection) + date_events(connection, inbox.timezone)


def replay(
    inbox: Inbox,
    *,
    since: datetime | None = None,
    workspaces: Collection[str] = (),
    statuses: Collection[EventStatus] = NOT_COUNTED_YET,
) -> ReplayReport:
    """Read stored events again and work out the rows of their clients anew.

    Of those that arrived at `since` or later, of these clients, or of all, and that stand so. An
    event that has its day keeps it, and one that counts already counts no second time: a replay
    that is repeated changes nothing. Those set aside get another five tries.
    """
    match_and_date(inbox)
    with inbox.engine.begin() as connection:
        chosen = read_stored(connection, since=since, workspaces=workspaces, statuses=statuses)
    for place in range(0, len(chosen), _AT_ONCE):
        part = chosen[place : place + _AT_ONCE]
        with inbox.engine.begin() as connection:
            for event in part:
                if event.status in _READ_AGAIN and event.body is not None:
                    _read_again(connection, inbox, event)
            let_wait_again(connection, [it.id for it in part if it.metric is not None])
    ids = [event.id for event in chosen]
    with inbox.engine.begin() as connection:
        waiting = clients_that_wait(connection, ids)
    for workspace in waiting:
        with inbox.engine.begin() as connection:
            lock_client(connection, workspace)
            apply_pending(connection, [workspace], inbox.timezone, inbox.now())
    with inbox.engine.begin() as connection:
        now = read_stored(connection, ids=ids)
    applied = sum(event.status is EventStatus.APPLIED for event in now)
    return ReplayReport(len(chosen), applied, len(chosen) - applied)


def purge(inbox: Inbox, *, older_than_days: int) -> int:
    """Drop the bodies of events that came in longer ago; how many.

    With them go names, addresses and the text of mails. What tells an event from others and what
    the numbers are made of stays.
    """
    before = inbox.now() - timedelta(days=older_than_days)
    dropped = 0
    while True:
        with inbox.engine.begin() as connection:
            some = drop_bodies(connection, before, most=_AT_ONCE)
        if not some:
            return dropped
        dropped += some


def _read_again(connection: Connection, inbox: Inbox, stored: StoredEvent) -> None:
    event = of_its_instance(
        understand(
            stored.body or b"",
            instance=stored.instance,
            source=stored.source,
            arrived_at=stored.arrived_at,
            tz=inbox.timezone,
        ),
        inbox.instance_urls,
    )
    if event.status is EventStatus.RECEIVED:
        owners = find_owners(connection, [event])
        owner = owners.get((event.instance, event.bison_workspace_id or 0))
        rewrite_event(connection, stored.id, event, owner)
