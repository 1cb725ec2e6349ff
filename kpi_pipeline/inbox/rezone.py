"""Moves all stored dates to another zone of Email Bison's days, at once."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from zoneinfo import ZoneInfo

from sqlalchemy import Engine, select, text

from kpi_pipeline.db.coordination.locks import lock_clients
from kpi_pipeline.db.day_zone import store_day_zone, stored_day_zone
from kpi_pipeline.db.recompute import update_rows
from kpi_pipeline.db.tables import clients

# So many clients' rows are computed together.
_GROUP = 25

_MOVE = text("""
    UPDATE webhook_events
    SET business_date = (coalesce(happened_at, arrived_at) AT TIME ZONE :zone)::date
    WHERE business_date <> (coalesce(happened_at, arrived_at) AT TIME ZONE :zone)::date
""")


@dataclass(frozen=True)
class Adopted:
    """The zone before, and how many events moved to another day and how many rows were computed."""

    before: str | None
    moved: int
    rows: int


def adopt_day_zone(
    engine: Engine, zone: ZoneInfo, on_progress: Callable[[int, int], None] = lambda *_: None
) -> Adopted:
    """Move every event to its day in `zone`, and recompute all rows, in one transaction.

    Daily facts keep their dates, which are Email Bison's. A process that still works with another
    zone waits for the end, and then fails and writes nothing. `on_progress` gets the number of
    clients that are done, and of all.
    """
    with engine.begin() as connection:
        # In this order: no client is added, no row is computed, and no event is stored meanwhile.
        connection.execute(text("LOCK TABLE clients IN SHARE MODE"))
        workspaces = list(connection.scalars(select(clients.c.workspace).order_by("workspace")))
        lock_clients(connection, workspaces)
        connection.execute(text("LOCK TABLE webhook_events IN SHARE ROW EXCLUSIVE MODE"))
        before = stored_day_zone(connection)
        moved = connection.execute(_MOVE, {"zone": zone.key}).rowcount
        store_day_zone(connection, zone)
        rows = 0
        for start in range(0, len(workspaces), _GROUP):
            group = workspaces[start : start + _GROUP]
            rows += update_rows(connection, group, since=date.min, zone=zone, source="recompute")
            on_progress(start + len(group), len(workspaces))
    return Adopted(before, moved, rows)
