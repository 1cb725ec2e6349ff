"""The webhook inbox: events are stored, read, retried, and stripped of their bodies."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import (
    Column,
    Connection,
    Select,
    case,
    func,
    literal_column,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from kpi_pipeline.db.tables import clients, webhook_events
from kpi_pipeline.domain.events.event import Event, EventSource, EventStatus

MOST_TRIES = 5
# After the first try that failed, the second, and so on.
_WAITS = [timedelta(seconds=15), *(timedelta(minutes=it) for it in (1, 5, 15))]

NO_CLIENT = "No client has this workspace; the event is applied once one with it is imported."
NOT_ACTIVE = "The client of this workspace is inactive; the event is applied once it is active."


@dataclass(frozen=True)
class Owner:
    """The client of a workspace in Email Bison."""

    workspace: str
    active: bool


@dataclass(frozen=True)
class Receipt:
    """A stored event: id and status of its row, and whether it is new or another delivery."""

    event_id: int
    status: EventStatus
    is_new: bool
    reason: str | None


def find_owners(connection: Connection, events: Iterable[Event]) -> dict[tuple[str, int], Owner]:
    """The clients of the events, by instance and Bison workspace id; one query."""
    wanted = {(it.instance, it.bison_workspace_id) for it in events if it.bison_workspace_id}
    if not wanted:
        return {}
    identity = tuple_(clients.c.instance, clients.c.bison_workspace_id)
    statement = select(
        clients.c.instance, clients.c.bison_workspace_id, clients.c.workspace, clients.c.active
    ).where(identity.in_(wanted))
    return {
        (row.instance, row.bison_workspace_id): Owner(row.workspace, row.active)
        for row in connection.execute(statement)
    }


def store_events(
    connection: Connection,
    events: Sequence[tuple[Event, Owner | None]],
) -> list[Receipt]:
    """Write the events, each with its owner; return their receipts, in the same order.

    An event that is stored already counts another delivery, and changes nothing else.
    """
    rows: dict[str, dict[str, object]] = {}
    first_of_key: dict[str, int] = {}
    for index, (event, owner) in enumerate(events):
        key = event.idempotency_key
        if key in rows:
            rows[key]["deliveries"] = int(str(rows[key]["deliveries"])) + 1
            rows[key]["last_delivered_at"] = event.arrived_at
        else:
            rows[key] = event_row(event, owner)
            first_of_key[key] = index
    if not rows:
        return []
    statement = insert(webhook_events)
    excluded = statement.excluded
    upserted = statement.on_conflict_do_update(
        index_elements=[webhook_events.c.idempotency_key],
        set_={
            "deliveries": webhook_events.c.deliveries + excluded.deliveries,
            "last_delivered_at": func.greatest(
                webhook_events.c.last_delivered_at, excluded.last_delivered_at
            ),
        },
    ).returning(
        webhook_events.c.id,
        webhook_events.c.idempotency_key,
        webhook_events.c.status,
        webhook_events.c.reason,
        # True for a row that this statement inserted, not updated.
        literal_column("(xmax = 0)").label("is_new"),
    )
    # Always in the same order: processes that store the same events do not deadlock.
    written = connection.execute(upserted, [rows[key] for key in sorted(rows)]).mappings()
    by_key = {row["idempotency_key"]: row for row in written}
    receipts = []
    for index, (event, _) in enumerate(events):
        row = by_key[event.idempotency_key]
        is_new = bool(row["is_new"]) and first_of_key[event.idempotency_key] == index
        receipts.append(Receipt(row["id"], EventStatus(row["status"]), is_new, row["reason"]))
    return receipts


def read_statuses(connection: Connection, event_ids: Collection[int]) -> dict[int, EventStatus]:
    """The statuses of these events, by id."""
    if not event_ids:
        return {}
    statement = select(webhook_events.c.id, webhook_events.c.status).where(
        webhook_events.c.id.in_(event_ids)
    )
    return {row.id: EventStatus(row.status) for row in connection.execute(statement)}


def note_failure(
    connection: Connection, workspaces: Collection[str], reason: str, now: datetime
) -> None:
    """Note that applying the received events of these clients failed once more.

    After the fifth failure the events are set aside. They no longer count, and the client's other
    numbers can be computed again.
    """
    failed = webhook_events.c.tries + 1
    waits = [(failed == number, now + wait) for number, wait in enumerate(_WAITS, start=1)]
    connection.execute(
        update(webhook_events)
        .where(
            webhook_events.c.workspace.in_(workspaces),
            webhook_events.c.status == EventStatus.RECEIVED,
        )
        .values(
            tries=failed,
            reason=reason,
            next_try_at=case(*waits),
            status=case((failed >= MOST_TRIES, EventStatus.SET_ASIDE), else_=EventStatus.RECEIVED),
        )
    )


def match_events(connection: Connection) -> int:
    """Match events to clients that are active by now; return how many."""
    statement = text("""
        UPDATE webhook_events e
        SET workspace = c.workspace, status = 'received', reason = NULL
        FROM clients c
        WHERE e.status = 'unmatched' AND e.metric IS NOT NULL AND c.active
          AND c.instance = e.instance AND c.bison_workspace_id = e.bison_workspace_id
    """)
    return connection.execute(statement).rowcount


def date_events(connection: Connection, tz: ZoneInfo) -> int:
    """Date the events that the function `increment_metric` stored; return how many."""
    statement = text("""
        UPDATE webhook_events
        SET business_date = (arrived_at AT TIME ZONE :zone)::date
        WHERE status IN ('received', 'set_aside') AND business_date IS NULL
    """)
    return connection.execute(statement, {"zone": tz.key}).rowcount


def event_row(event: Event, owner: Owner | None) -> dict[str, object]:
    """The row of an event that arrived; UNMATCHED without an active client."""
    status, reason = event.status, event.reason
    if status is EventStatus.RECEIVED and (owner is None or not owner.active):
        status, reason = EventStatus.UNMATCHED, NO_CLIENT if owner is None else NOT_ACTIVE
    return {
        "instance": event.instance,
        "source": event.source,
        "arrived_at": event.arrived_at,
        "body": event.body,
        "idempotency_key": event.idempotency_key,
        "event_type": event.event_type,
        "bison_workspace_id": event.bison_workspace_id,
        "workspace": None if owner is None else owner.workspace,
        "metric": event.metric,
        "happened_at": event.happened_at,
        "business_date": event.business_date,
        "status": status,
        "reason": reason,
        "deliveries": 1,
        "last_delivered_at": event.arrived_at,
    }


# Columns that a replay does not change.
_FIXED = ("source", "arrived_at", "body", "deliveries", "last_delivered_at")


@dataclass(frozen=True)
class StoredEvent:
    """A row of the inbox. `body` is None once it is purged."""

    id: int
    instance: str
    source: EventSource
    arrived_at: datetime
    body: bytes | None
    event_type: str | None
    bison_workspace_id: int | None
    workspace: str | None
    metric: str | None
    business_date: date | None
    status: EventStatus
    reason: str | None
    tries: int


def read_stored(
    connection: Connection,
    *,
    since: datetime | None = None,
    workspaces: Collection[str] = (),
    statuses: Collection[EventStatus] = (),
    ids: Collection[int] | None = None,
) -> list[StoredEvent]:
    """The events that arrived at `since` or later, of these clients, and in these statuses.

    The oldest comes first. An argument that is not given does not restrict them.
    """
    statement = _chosen(select(*_columns()), since, workspaces, statuses)
    if ids is not None:
        statement = statement.where(webhook_events.c.id.in_(ids))
    rows = connection.execute(statement.order_by(webhook_events.c.id)).mappings()
    return [_stored(dict(row)) for row in rows]


def read_newest(
    connection: Connection,
    most: int,
    *,
    since: datetime | None = None,
    workspaces: Collection[str] = (),
    statuses: Collection[EventStatus] = (),
) -> tuple[int, list[StoredEvent]]:
    """How many such events there are, and the newest `most`, without their bodies."""
    count = _chosen(select(func.count()).select_from(webhook_events), since, workspaces, statuses)
    columns = [column for column in _columns() if column.name != "body"]
    newest = _chosen(select(*columns), since, workspaces, statuses)
    rows = connection.execute(newest.order_by(webhook_events.c.id.desc()).limit(most)).mappings()
    found = [_stored({**row, "body": None}) for row in rows]
    return connection.scalar(count) or 0, found


def rewrite_event(connection: Connection, event_id: int, event: Event, owner: Owner | None) -> None:
    """Write an event as it is parsed now. A duplicate of another row only gets a reason."""
    twin = connection.scalar(
        select(webhook_events.c.id).where(
            webhook_events.c.idempotency_key == event.idempotency_key,
            webhook_events.c.id != event_id,
        )
    )
    row = {name: value for name, value in event_row(event, owner).items() if name not in _FIXED}
    connection.execute(
        update(webhook_events)
        .where(webhook_events.c.id == event_id)
        .values(row if twin is None else {"reason": f"The same event as {twin}."})
    )


def let_wait_again(connection: Connection, event_ids: Sequence[int]) -> None:
    """Mark counted events as received, with no tries yet: they are applied again."""
    connection.execute(
        update(webhook_events)
        .where(
            webhook_events.c.id.in_(event_ids),
            webhook_events.c.status.in_(
                [EventStatus.RECEIVED, EventStatus.SET_ASIDE, EventStatus.APPLIED]
            ),
        )
        .values(status=EventStatus.RECEIVED, tries=0, next_try_at=None, reason=None)
    )


def clients_that_wait(connection: Connection, event_ids: Sequence[int]) -> list[str]:
    """The clients of those of these events that are to be applied."""
    statement = (
        select(webhook_events.c.workspace)
        .where(
            webhook_events.c.id.in_(event_ids),
            webhook_events.c.status == EventStatus.RECEIVED,
        )
        .distinct()
        .order_by(webhook_events.c.workspace)
    )
    return list(connection.scalars(statement))


def drop_bodies(connection: Connection, before: datetime, *, most: int) -> int:
    """Delete the bodies of up to `most` events that arrived before that instant; how many."""
    statement = text("""
        UPDATE webhook_events SET body = NULL
        WHERE id IN (
            SELECT id FROM webhook_events
            WHERE body IS NOT NULL AND arrived_at < :before
            ORDER BY arrived_at LIMIT :most FOR UPDATE SKIP LOCKED
        )
    """)
    return connection.execute(statement, {"before": before, "most": most}).rowcount


def _columns() -> list[Column[Any]]:
    return [webhook_events.c[it.name] for it in fields(StoredEvent)]


def _chosen(
    statement: Select[Any],
    since: datetime | None,
    workspaces: Collection[str],
    statuses: Collection[EventStatus],
) -> Select[Any]:
    if since is not None:
        statement = statement.where(webhook_events.c.arrived_at >= since)
    if workspaces:
        statement = statement.where(webhook_events.c.workspace.in_(workspaces))
    if statuses:
        statement = statement.where(webhook_events.c.status.in_(statuses))
    return statement


def _stored(row: dict[str, Any]) -> StoredEvent:
    enums = {"source": EventSource(row["source"]), "status": EventStatus(row["status"])}
    return StoredEvent(**{**row, **enums})
