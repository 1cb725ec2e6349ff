"""The event feed: how far it was read for each client, and what it tells of stored events."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, DateTime, bindparam, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.types import ARRAY, Text

from kpi_pipeline.db.tables import event_feed, event_feed_missing
from kpi_pipeline.domain.events.event import Event, EventStatus

# An instance without the endpoint is asked again after an upgrade may have brought it.
_ASK_AGAIN = timedelta(days=1)


@dataclass(frozen=True)
class FeedState:
    """How far the feed of one client was read for one type of event.

    `recorded_until` is by Email Bison's clock, the other times are by ours. `read_at` is None if no
    reading succeeded. `problem` says why the last reading failed, or is not complete.
    """

    workspace: str
    event_type: str
    tried_at: datetime
    read_at: datetime | None = None
    recorded_until: datetime | None = None
    problem: str | None = None


@dataclass(frozen=True)
class MovedEvent:
    """An applied event whose time the feed corrected, with its days before and after."""

    before: date
    after: date


def read_feed_states(connection: Connection) -> dict[tuple[str, str], FeedState]:
    """What is known of each feed, by client and type of event."""
    rows = connection.execute(select(event_feed)).mappings()
    return {(row["workspace"], row["event_type"]): FeedState(**row) for row in rows}


def store_feed_states(connection: Connection, states: Collection[FeedState]) -> None:
    """Store the results of readings. A failed one keeps how far the feed was read before."""
    rows = [vars(it) for it in sorted(states, key=lambda it: (it.workspace, it.event_type))]
    if not rows:
        return
    statement = insert(event_feed)
    new, old = statement.excluded, event_feed.c
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[old.workspace, old.event_type],
            set_={
                "tried_at": new.tried_at,
                "read_at": func.coalesce(new.read_at, old.read_at),
                # Two readings at once may end in any order.
                "recorded_until": func.greatest(new.recorded_until, old.recorded_until),
                "problem": new.problem,
            },
        ),
        rows,
    )


def instances_without_feed(connection: Connection, now: datetime | None = None) -> set[str]:
    """The instances that have no feed; with `now`, without those that are to be asked again."""
    statement = select(event_feed_missing.c.instance)
    if now is not None:
        statement = statement.where(event_feed_missing.c.asked_at > now - _ASK_AGAIN)
    return set(connection.scalars(statement))


def note_missing_feed(connection: Connection, instance: str, now: datetime) -> bool:
    """Note that an instance has no feed; whether that is news."""
    statement = insert(event_feed_missing).values(instance=instance, noted_at=now, asked_at=now)
    noted = statement.on_conflict_do_update(
        index_elements=[event_feed_missing.c.instance], set_={"asked_at": now}
    ).returning(event_feed_missing.c.noted_at == now)
    return bool(connection.scalar(noted))


def forget_missing_feed(connection: Connection, instance: str) -> None:
    """Note that an instance has a feed."""
    connection.execute(delete(event_feed_missing).where(event_feed_missing.c.instance == instance))


# Of several records of one event, the first counts: later ones tell that it happened once more.
_RECORD = text("""
    WITH feed AS (
        SELECT * FROM unnest(:keys, :uuids, :times) AS f(idempotency_key, uuid, recorded_at)
    ), known AS (
        SELECT e.id, e.business_date, e.happened_at, e.status, f.uuid, f.recorded_at,
            least(f.recorded_at, e.arrived_at) AS happened
        FROM webhook_events e
        JOIN feed f USING (idempotency_key)
        WHERE e.recorded_at IS NULL OR f.recorded_at < e.recorded_at
        FOR UPDATE OF e
    ), recorded AS (
        UPDATE webhook_events e
        SET feed_uuid = k.uuid, recorded_at = k.recorded_at, happened_at = k.happened,
            business_date = (k.happened AT TIME ZONE CAST(:zone AS text))::date
        FROM known k
        WHERE e.id = k.id
        RETURNING e.id, e.business_date
    )
    SELECT k.business_date AS before, r.business_date AS after
    FROM recorded r
    JOIN known k USING (id)
    WHERE k.status = :applied AND k.happened_at IS DISTINCT FROM k.happened
""").bindparams(
    bindparam("keys", type_=ARRAY(Text)),
    bindparam("uuids", type_=ARRAY(Text)),
    bindparam("times", type_=ARRAY(DateTime(timezone=True))),
)


def record_times(
    connection: Connection, events: Sequence[Event], zone: ZoneInfo
) -> list[MovedEvent]:
    """Give stored events the id and the time that the feed has for them, the best that is known.

    `events` are of the feed, each with its recorded time, no two of them with the same idempotency
    key. Returns the applied events whose time changed: the caller, who holds the client's lock,
    recomputes the rows of their days.
    """
    values = {
        "keys": [it.idempotency_key for it in events],
        "uuids": [it.feed_uuid for it in events],
        "times": [it.recorded_at for it in events],
        "zone": zone.key,
        "applied": EventStatus.APPLIED,
    }
    moved = connection.execute(_RECORD, values).mappings()
    return [MovedEvent(**row) for row in moved]
