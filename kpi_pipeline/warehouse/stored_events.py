"""Events that stand in the inbox: read again, shown, given another try, and stripped of bodies."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any

from sqlalchemy import Column, Connection, Select, func, select, text, update

from kpi_pipeline.events.event import Event, EventSource, EventStatus
from kpi_pipeline.warehouse.inbox import Owner, event_row
from kpi_pipeline.warehouse.tables import webhook_events

# What stays as it was when an event is read again.
_FIXED = ("source", "arrived_at", "body", "deliveries", "last_delivered_at")


@dataclass(frozen=True)
class StoredEvent:
    """A row of the inbox. `body` is None once it was dropped."""

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
    """The events that arrived at `since` or later, of these clients, that stand so; oldest first.

    What is not given does not matter.
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
    """How many such events there are, and the newest of them, without their bodies."""
    count = _chosen(select(func.count()).select_from(webhook_events), since, workspaces, statuses)
    columns = [column for column in _columns() if column.name != "body"]
    newest = _chosen(select(*columns), since, workspaces, statuses)
    rows = connection.execute(newest.order_by(webhook_events.c.id.desc()).limit(most)).mappings()
    found = [_stored({**row, "body": None}) for row in rows]
    return connection.scalar(count) or 0, found


def rewrite_event(connection: Connection, event_id: int, event: Event, owner: Owner | None) -> None:
    """Write what an event is understood to be by now.

    Where it is the same as another row, it stays as it is, and says so.
    """
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
    """Let counted events be applied once more, with all their tries before them."""
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
    """The clients whose rows are to be worked out with any of these events."""
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
    """Drop the bodies of some events that arrived before that instant; how many."""
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
