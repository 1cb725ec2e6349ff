"""Events by status, and events that need a person: their problem and their number."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Connection, func, select, text

from kpi_pipeline.db.tables import webhook_events
from kpi_pipeline.domain.events.event import EventStatus


@dataclass(frozen=True)
class EventCount:
    """The number of one client's events with one status; `workspace` is None for no client."""

    workspace: str | None
    status: EventStatus
    events: int


def count_events(connection: Connection) -> list[EventCount]:
    """The number of all events in the inbox, by client and status."""
    columns = webhook_events.c.workspace, webhook_events.c.status
    statement = select(*columns, func.count()).group_by(*columns).order_by(*columns)
    return [
        EventCount(workspace, EventStatus(status), events)
        for workspace, status, events in connection.execute(statement)
    ]


def applied_between(connection: Connection, after: datetime, until: datetime) -> dict[str, int]:
    """The events applied after `after`, up to and including `until`, by client, most first."""
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


# A deployment of the gateway, or an import of clients, may take that long.
_WAITING_TOO_LONG = timedelta(minutes=15)
_UNMATCHED_TOO_LONG = timedelta(days=1)
# Older events need nobody any more: facts that were fetched since hold them anyway.
_HISTORY = timedelta(days=7)


class EventProblem(StrEnum):
    """What is wrong with an event."""

    SET_ASIDE = "set aside"
    INVALID = "invalid"
    UNMATCHED = "of no client"
    WAITING = "waiting"


@dataclass(frozen=True)
class ProblemEvent:
    """One event; `client` is the workspace key, or instance and id of an unregistered workspace."""

    event_id: int
    event_type: str | None
    client: str
    reason: str | None


@dataclass(frozen=True)
class ProblemEvents:
    """All events with one problem: how many, of which clients, and the latest few."""

    problem: EventProblem
    events: int
    clients: Sequence[str]
    latest: Sequence[ProblemEvent]


# Each problem has its own index. Clients that are not active any more are left out: somebody
# decided that their events do not count.
_PROBLEM_EVENTS = text("""
    WITH with_problem AS (
        SELECT id, event_type, workspace, instance, bison_workspace_id, reason,
            CASE status WHEN 'set_aside' THEN 'set aside' ELSE 'invalid' END AS problem
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
            row_number() OVER (PARTITION BY problem ORDER BY id DESC) AS place
        FROM with_problem
    ), counted AS (
        SELECT problem, count(*) AS events, array_agg(DISTINCT client) AS clients
        FROM placed
        GROUP BY problem
    )
    SELECT problem, events, clients, id, event_type, reason, client
    FROM placed
    JOIN counted USING (problem)
    WHERE place <= :most
    ORDER BY place
""")


def read_problem_events(connection: Connection, now: datetime, most: int) -> list[ProblemEvents]:
    """The problems that events have at `now`, each with its latest events, at most `most`.

    These are events that were set aside; invalid ones of the last seven days; those of the last
    seven days that have had no client for a day; and those not applied after 15 minutes.
    """
    limits = {
        "history": now - _HISTORY,
        "unmatched_since": now - _UNMATCHED_TOO_LONG,
        "waiting_since": now - _WAITING_TOO_LONG,
        "most": most,
    }
    rows = connection.execute(_PROBLEM_EVENTS, limits).all()
    by_problem = {kind: [row for row in rows if row.problem == kind] for kind in EventProblem}
    return [
        ProblemEvents(
            problem,
            latest[0].events,
            latest[0].clients,
            [ProblemEvent(row.id, row.event_type, row.client, row.reason) for row in latest],
        )
        for problem, latest in by_problem.items()
        if latest
    ]
