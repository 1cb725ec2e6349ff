"""Stored events: listed, chosen for a replay, stripped of their bodies, and deleted."""

from collections.abc import Collection
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Select, func, select, text, update
from sqlalchemy.types import Text

from kpi_pipeline.db.events.inbox import Owner, event_row, one_of_values
from kpi_pipeline.db.tables import webhook_events
from kpi_pipeline.domain.events.event import Event, EventSource, EventStatus

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


@dataclass(frozen=True)
class Chosen:
    """An event of a replay: what of its row decides what is done with it."""

    id: int
    status: EventStatus
    workspace: str | None
    business_date: date | None


def choose_events(
    connection: Connection,
    *,
    after: int,
    until: int,
    most: int,
    since: datetime | None = None,
    workspaces: Collection[str] = (),
    statuses: Collection[EventStatus] = (),
) -> list[Chosen]:
    """Up to `most` events with ids above `after`, up to `until`, in order of their ids.

    They arrived at `since` or later, and are of these clients and in these statuses; an argument
    that is not given does not restrict them.
    """
    columns = (webhook_events.c[it.name] for it in fields(Chosen))
    statement = _chosen(select(*columns), since, workspaces, statuses)
    statement = statement.where(webhook_events.c.id > after, webhook_events.c.id <= until)
    return [
        Chosen(row.id, EventStatus(row.status), row.workspace, row.business_date)
        for row in connection.execute(statement.order_by(webhook_events.c.id).limit(most))
    ]


def last_event_id(connection: Connection) -> int:
    """The highest id of a stored event; 0 if there is none."""
    return connection.scalar(select(func.max(webhook_events.c.id))) or 0


def read_stored(connection: Connection, event_ids: Collection[int]) -> list[StoredEvent]:
    """These events, with their bodies; the oldest comes first."""
    statement = select(*_columns()).where(
        one_of_values(webhook_events.c.id, event_ids, BigInteger())
    )
    rows = connection.execute(statement.order_by(webhook_events.c.id)).mappings()
    return [_stored(dict(row)) for row in rows]


def count_applied(connection: Connection, event_ids: Collection[int]) -> int:
    """How many of these events are applied."""
    statement = (
        select(func.count())
        .select_from(webhook_events)
        .where(
            one_of_values(webhook_events.c.id, event_ids, BigInteger()),
            webhook_events.c.status == EventStatus.APPLIED,
        )
    )
    return connection.scalar(statement) or 0


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


def mark_pending_again(
    connection: Connection,
    workspace: str,
    *,
    until: int,
    since: datetime | None = None,
    statuses: Collection[EventStatus] = (),
) -> None:
    """Mark events of the client that are received or set aside as received, with no tries yet.

    Those with ids up to `until`, as `choose_events` chooses them. The caller holds the client's
    lock, and applies them.
    """
    waiting = {EventStatus.RECEIVED, EventStatus.SET_ASIDE}
    chosen = waiting.intersection(statuses) if statuses else waiting
    statement = update(webhook_events).where(
        webhook_events.c.workspace == workspace,
        webhook_events.c.id <= until,
        one_of_values(webhook_events.c.status, chosen, Text()),
    )
    if since is not None:
        statement = statement.where(webhook_events.c.arrived_at >= since)
    again = {"status": EventStatus.RECEIVED, "tries": 0, "next_try_at": None, "reason": None}
    connection.execute(statement.values(again))


def workspaces_with_pending(connection: Connection, event_ids: Collection[int]) -> set[str]:
    """The clients of those of these events that are to be applied, or may be tried again."""
    statement = (
        select(webhook_events.c.workspace)
        .where(
            one_of_values(webhook_events.c.id, event_ids, BigInteger()),
            webhook_events.c.workspace.is_not(None),
            webhook_events.c.status.in_([EventStatus.RECEIVED, EventStatus.SET_ASIDE]),
        )
        .distinct()
    )
    return set(connection.scalars(statement))


def end_of_page(connection: Connection, after: int, most: int) -> int | None:
    """The highest of the first `most` ids above `after`; None if there is none."""
    statement = text("""
        SELECT max(id) FROM (
            SELECT id FROM webhook_events WHERE id > :after ORDER BY id LIMIT :most
        ) page
    """)
    last: int | None = connection.scalar(statement, {"after": after, "most": most})
    return last


def drop_bodies(connection: Connection, after: int, last: int, *, before: datetime) -> int:
    """Delete the bodies of events that arrived before that instant; return how many.

    Of those with ids above `after`, up to `last`.
    """
    statement = text("""
        UPDATE webhook_events SET body = NULL
        WHERE id IN (
            SELECT id FROM webhook_events
            WHERE id > :after AND id <= :last AND body IS NOT NULL AND arrived_at < :before
            FOR UPDATE SKIP LOCKED
        )
    """)
    page = {"after": after, "last": last, "before": before}
    return connection.execute(statement, page).rowcount


def delete_finished(
    connection: Connection, after: int, last: int, *, before: date, now: datetime
) -> int:
    """Delete events of days before that date that raise no number any more; return how many.

    Of those with ids above `after`, up to `last`. The facts of its day hold an event if they were
    asked for when it had happened. One that they don't hold stays: it counts on top of them. So do
    the facts of the days around it have to: under another zone, it belongs to one of them.
    """
    statement = text("""
        DELETE FROM webhook_events
        WHERE id IN (
            SELECT e.id FROM webhook_events e
            WHERE e.id > :after AND e.id <= :last AND e.business_date < :before
              AND (
                e.status IN ('ignored', 'test', 'invalid', 'unmatched')
                OR e.status IN ('applied', 'set_aside') AND (
                    SELECT bool_or(f.date = e.business_date) AND bool_and(
                        f.as_of BETWEEN coalesce(e.happened_at, e.arrived_at) AND :now
                    )
                    FROM raw_bison_stats f
                    WHERE f.workspace = e.workspace
                      AND f.date BETWEEN e.business_date - 1 AND e.business_date + 1
                )
              )
            FOR UPDATE SKIP LOCKED
        )
    """)
    page = {"after": after, "last": last, "before": before, "now": now}
    return connection.execute(statement, page).rowcount


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
        statement = statement.where(one_of_values(webhook_events.c.workspace, workspaces, Text()))
    if statuses:
        statement = statement.where(one_of_values(webhook_events.c.status, statuses, Text()))
    return statement


def _stored(row: dict[str, Any]) -> StoredEvent:
    enums = {"source": EventSource(row["source"]), "status": EventStatus(row["status"])}
    return StoredEvent(**{**row, **enums})
