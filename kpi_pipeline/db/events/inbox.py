"""The webhook inbox: events are stored, matched to clients, dated, and tried again."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    any_,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.types import ARRAY, Text, TypeEngine

from kpi_pipeline.db.tables import webhook_events
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


_OWNERS = text("""
    SELECT instance, bison_workspace_id, workspace, active
    FROM unnest(:instances, :ids) AS w(instance, bison_workspace_id)
    JOIN clients USING (instance, bison_workspace_id)
""").bindparams(
    bindparam("instances", type_=ARRAY(Text)), bindparam("ids", type_=ARRAY(BigInteger))
)


def find_owners(connection: Connection, events: Iterable[Event]) -> dict[tuple[str, int], Owner]:
    """The clients of the events, by instance and Bison workspace id; one query."""
    wanted = {(it.instance, it.bison_workspace_id) for it in events if it.bison_workspace_id}
    if not wanted:
        return {}
    instances, ids = zip(*wanted, strict=True)
    found = connection.execute(_OWNERS, {"instances": list(instances), "ids": list(ids)})
    return {
        (row.instance, row.bison_workspace_id): Owner(row.workspace, row.active) for row in found
    }


# The lock is that of `try_lock_clients`. There is one row at least, so that the time-out is set.
_OWNERS_LOCKED = text("""
    SELECT w.instance, w.bison_workspace_id, workspace, active, limited.set_config,
        CASE WHEN active AND counts AND workspace <> ALL(:busy)
            THEN pg_try_advisory_xact_lock(hashtextextended('kpi:client:' || workspace, 0))
        END AS locked
    FROM (SELECT set_config('lock_timeout', :lock_timeout, true)) AS limited
    LEFT JOIN unnest(:instances, :ids, :counts) AS w(instance, bison_workspace_id, counts) ON true
    LEFT JOIN clients ON clients.instance = w.instance
        AND clients.bison_workspace_id = w.bison_workspace_id
""").bindparams(
    bindparam("instances", type_=ARRAY(Text)),
    bindparam("ids", type_=ARRAY(BigInteger)),
    bindparam("counts", type_=ARRAY(Boolean)),
    bindparam("busy", type_=ARRAY(Text)),
)


def lock_owners(
    connection: Connection, events: Iterable[Event], busy: Collection[str], lock_timeout: str
) -> tuple[dict[tuple[str, int], Owner], set[str]]:
    """As `find_owners`, and lock the clients for whom some events count; return which are locked.

    None is waited for, and those in `busy` are not tried. From here on, the transaction waits for
    no lock for longer than `lock_timeout`. It is one statement, as each batch of events needs it.
    """
    counts: dict[tuple[str, int], bool] = {}
    for it in events:
        if it.bison_workspace_id:
            place = it.instance, it.bison_workspace_id
            counts[place] = counts.get(place, False) or it.status is EventStatus.RECEIVED
    values = {
        "instances": [instance for instance, _ in counts],
        "ids": [workspace_id for _, workspace_id in counts],
        "counts": list(counts.values()),
        "busy": list(busy),
        "lock_timeout": lock_timeout,
    }
    found = [it for it in connection.execute(_OWNERS_LOCKED, values) if it.workspace is not None]
    owners = {(it.instance, it.bison_workspace_id): Owner(it.workspace, it.active) for it in found}
    return owners, {it.workspace for it in found if it.locked}


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


def read_receipts(connection: Connection, idempotency_keys: Collection[str]) -> dict[str, Receipt]:
    """The receipts of those of the events that are stored already, by idempotency key."""
    columns = "id", "idempotency_key", "status", "reason"
    statement = select(*(webhook_events.c[name] for name in columns)).where(
        one_of_values(webhook_events.c.idempotency_key, idempotency_keys, Text())
    )
    return {
        row.idempotency_key: Receipt(row.id, EventStatus(row.status), False, row.reason)
        for row in connection.execute(statement)
    }


def read_statuses(connection: Connection, event_ids: Collection[int]) -> dict[int, EventStatus]:
    """The statuses of these events, by id."""
    if not event_ids:
        return {}
    statement = select(webhook_events.c.id, webhook_events.c.status).where(
        one_of_values(webhook_events.c.id, event_ids, BigInteger())
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
            one_of_values(webhook_events.c.workspace, workspaces, Text()),
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
    # Those that are being applied get their dates there.
    statement = text("""
        UPDATE webhook_events
        SET business_date = (arrived_at AT TIME ZONE :zone)::date
        WHERE id IN (
            SELECT id FROM webhook_events
            WHERE business_date IS NULL AND status IN ('received', 'set_aside')
            FOR UPDATE SKIP LOCKED
        )
    """)
    return connection.execute(statement, {"zone": tz.key}).rowcount


def event_row(event: Event, owner: Owner | None) -> dict[str, object]:
    """The row of an event that arrived; UNMATCHED without an active client."""
    status, reason = event.status, event.reason
    delivered = event.source is not EventSource.FEED
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
        # What was read in the feed was not delivered, and may be later.
        "deliveries": 1 if delivered else 0,
        "last_delivered_at": event.arrived_at if delivered else None,
        "feed_uuid": event.feed_uuid,
        "recorded_at": event.recorded_at,
    }


def one_of_values(
    column: Column[Any], values: Collection[Any], type_: TypeEngine[Any]
) -> ColumnElement[bool]:
    """Whether the column has one of these values, however many: they are one parameter."""
    return column == any_(literal(list(values), ARRAY(type_)))
