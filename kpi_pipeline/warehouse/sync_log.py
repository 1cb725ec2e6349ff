"""The log of the sync: what each run did for each client, readable without Dagster."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, func, select

from kpi_pipeline.warehouse.tables import sync_log
from kpi_pipeline.warehouse.upsert import upsert

_DURATIONS = ("seconds", "waiting_seconds", "calling_seconds")


@dataclass(frozen=True)
class SyncEntry:
    """What one run did for one client; `error` is None where all went well.

    Of its `seconds`, some were spent waiting to be let call, and some within calls.
    """

    run_id: str
    workspace: str
    first_date: date
    last_date: date
    error: str | None
    key_used: str | None
    api_calls: int
    seconds: float
    waiting_seconds: float
    calling_seconds: float
    finished_at: datetime


def store_entry(connection: Connection, entry: SyncEntry) -> None:
    """Write the entry; a second one of the same run and client replaces the first."""
    row = {**vars(entry), "status": "ok" if entry.error is None else "error"}
    upsert(connection, sync_log, [row])


def read_entries(connection: Connection, run_ids: Sequence[str]) -> list[SyncEntry]:
    """What these runs did, by client and time."""
    statement = (
        select(*(sync_log.c[name] for name in SyncEntry.__dataclass_fields__))
        .where(sync_log.c.run_id.in_(run_ids))
        .order_by(sync_log.c.workspace, sync_log.c.finished_at)
    )
    return [
        SyncEntry(**{**row, **{name: float(row[name]) for name in _DURATIONS}})
        for row in connection.execute(statement).mappings()
    ]


def count_entries(connection: Connection, run_id: str) -> int:
    """How many clients the run is done with, for better or worse."""
    statement = select(func.count()).select_from(sync_log).where(sync_log.c.run_id == run_id)
    return connection.scalar(statement) or 0


def last_entry_at(connection: Connection) -> datetime | None:
    """When the last client's work of any run ended."""
    found: datetime | None = connection.scalar(select(func.max(sync_log.c.finished_at)))
    return found
