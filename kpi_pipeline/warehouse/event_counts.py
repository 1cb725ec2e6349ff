"""How many events of the inbox stand where, and how many were applied when."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from kpi_pipeline.events.event import EventStatus
from kpi_pipeline.warehouse.tables import webhook_events


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
