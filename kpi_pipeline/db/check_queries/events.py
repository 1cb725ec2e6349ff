"""Events that a person should look at: what is wrong with them, and how many there are."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Connection, func, select, text

from kpi_pipeline.db.tables import webhook_events
from kpi_pipeline.domain.events.event import EventStatus


@dataclass(frozen=True)
class EventCount:
    """How many events of one client stand at one status; `workspace` is None for no client's."""

    workspace: str | None
    status: EventStatus
    events: int


def count_events(connection: Connection) -> list[EventCount]:
    """All events that ever came in, by client and status."""
    columns = webhook_events.c.workspace, webhook_events.c.status
    statement = select(*columns, func.count()).group_by(*columns).order_by(*columns)
    return [
        EventCount(workspace, EventStatus(status), events)
        for workspace, status, events in connection.execute(statement)
    ]


def applied_between(connection: Connection, after: datetime, until: datetime) -> dict[str, int]:
    """How many events of each client were applied after `after` and by `until`, most first."""
    events = func.count().label("events")
    statement = (
        select(webhook_events.c.workspace, events)
        .where(
            webhook_events.c.status == EventStatus.APPLIED,
            webhook_events.c.applied_at > after,
            webhook_events.c.applied_at <= until,
        )
        .group_by(webhook_events.c.workspace)
        .order_by(events.desc(), webhook_events.c.workspace)
    )
    return {row.workspace: row.events for row in connection.execute(statement)}


# A deploy of the gateway, or an import of clients, may take that long.
_WAITING_TOO_LONG = timedelta(minutes=15)
_UNMATCHED_TOO_LONG = timedelta(days=1)
# What nobody mended in a week is history: facts that were fetched since hold those events anyway.
_HISTORY = timedelta(days=7)


class EventTrouble(StrEnum):
    """What is wrong with an event."""

    SET_ASIDE = "set aside"
    INVALID = "invalid"
    UNMATCHED = "of no client"
    WAITING = "waiting"


@dataclass(frozen=True)
class TroubledEvent:
    """One event; `client` is the client's key, or the instance and id of a stranger's workspace."""

    event_id: int
    event_type: str | None
    client: str
    reason: str | None


@dataclass(frozen=True)
class TroubledEvents:
    """All events in one kind of trouble: how many, of whom, and the latest few of them."""

    trouble: EventTrouble
    events: int
    clients: Sequence[str]
    latest: Sequence[TroubledEvent]


# Each kind is found by an index of its own. Clients that are not active any more are left out:
# somebody decided that their events count no more.
_TROUBLED = text("""
    WITH troubled AS (
        SELECT id, event_type, workspace, instance, bison_workspace_id, reason,
            CASE status WHEN 'set_aside' THEN 'set aside' ELSE 'invalid' END AS trouble
        FROM webhook_events
        WHERE status IN ('set_aside', 'invalid')
          AND (status = 'set_aside' OR arrived_at > :history)
        UNION ALL
        SELECT id, event_type, workspace, instance, bison_workspace_id, reason, 'of no client'
        FROM webhook_events
        WHERE status = 'unmatched' AND workspace IS NULL
          AND arrived_at > :history AND arrived_at < :unmatched_since
        UNION ALL
        SELECT e.id, e.event_type, e.workspace, e.instance, e.bison_workspace_id, e.reason,
            'waiting'
        FROM webhook_events e
        JOIN clients c ON c.workspace = e.workspace
        WHERE e.status = 'received' AND c.active AND e.arrived_at < :waiting_since
    ), placed AS (
        SELECT *, coalesce(workspace, concat_ws(' ', instance, bison_workspace_id)) AS client,
            row_number() OVER (PARTITION BY trouble ORDER BY id DESC) AS place
        FROM troubled
    ), counted AS (
        SELECT trouble, count(*) AS events, array_agg(DISTINCT client) AS clients
        FROM placed
        GROUP BY trouble
    )
    SELECT trouble, events, clients, id, event_type, reason, client
    FROM placed
    JOIN counted USING (trouble)
    WHERE place <= :most
    ORDER BY place
""")


def troubled_events(connection: Connection, now: datetime, most: int) -> list[TroubledEvents]:
    """The kinds of trouble that there are at `now`, each with its latest events, at most `most`.

    Events that are set aside; invalid ones of the last seven days; those that have been nobody's
    for a day, of the last seven; and those that have waited to be applied for 15 minutes.
    """
    limits = {
        "history": now - _HISTORY,
        "unmatched_since": now - _UNMATCHED_TOO_LONG,
        "waiting_since": now - _WAITING_TOO_LONG,
        "most": most,
    }
    rows = connection.execute(_TROUBLED, limits).all()
    by_trouble = {kind: [row for row in rows if row.trouble == kind] for kind in EventTrouble}
    return [
        TroubledEvents(
            trouble,
            latest[0].events,
            latest[0].clients,
            [TroubledEvent(row.id, row.event_type, row.client, row.reason) for row in latest],
        )
        for trouble, latest in by_trouble.items()
        if latest
    ]
