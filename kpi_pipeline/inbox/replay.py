"""Applies stored events that do not count yet; and drops old event bodies."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from kpi_pipeline.db.day_zone import require_day_zone
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
from kpi_pipeline.domain.events.parse import parse_event
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
_BATCH = 500


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
    """Parse stored events again and recompute the rows of their clients.

    Takes events that arrived at `since` or later, of these `workspaces` (or of all), and in these
    `statuses`. An event keeps its business date, and one that counts already is not counted twice,
    so repeating a replay changes nothing. Events that were set aside get another five tries.
    """
    match_and_date(inbox)
    with inbox.engine.begin() as connection:
        chosen = read_stored(connection, since=since, workspaces=workspaces, statuses=statuses)
    for start in range(0, len(chosen), _BATCH):
        part = chosen[start : start + _BATCH]
        with inbox.engine.begin() as connection:
            for event in part:
                if event.status in _PARSED_AGAIN and event.body is not None:
                    _parse_again(connection, inbox, event)
            let_wait_again(connection, [it.id for it in part if it.metric is not None])
            require_day_zone(connection, inbox.day_zone)
    ids = [event.id for event in chosen]
    with inbox.engine.begin() as connection:
        pending = clients_that_wait(connection, ids)
    for workspace in pending:
        with inbox.engine.begin() as connection:
            lock_client(connection, workspace)
            apply_pending(connection, [workspace], inbox.day_zone, inbox.now())
    with inbox.engine.begin() as connection:
        now = read_stored(connection, ids=ids)
    applied = sum(event.status is EventStatus.APPLIED for event in now)
    return ReplayReport(len(chosen), applied, len(chosen) - applied)


def purge(inbox: Inbox, *, older_than_days: int) -> int:
    """Drop the bodies of events that arrived more than `older_than_days` days ago; return how many.

    Names, addresses and the texts of mails go with them. The idempotency key and all that the
    numbers are computed from stay.
    """
    before = inbox.now() - timedelta(days=older_than_days)
    dropped = 0
    while True:
        with inbox.engine.begin() as connection:
            some = drop_bodies(connection, before, most=_BATCH)
        if not some:
            return dropped
        dropped += some


def _parse_again(connection: Connection, inbox: Inbox, stored: StoredEvent) -> None:
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
