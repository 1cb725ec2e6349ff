"""Which clients' last sync failed, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import Connection, func, select, text

from kpi_pipeline.db.tables import sync_log
from kpi_pipeline.db.upsert import upsert

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


@dataclass(frozen=True)
class SyncOfRun:
    """One run as the view `daily_kpi_sync_history` has it; `status` is ok or error."""

    run_id: str
    started_at: datetime
    ended_at: datetime
    duration: timedelta
    status: str
    n_ok: int
    n_failed: int
    first_date: date
    last_date: date
    api_calls: int
    error: str | None


@dataclass(frozen=True)
class LastSync:
    """A client's last line of `sync_log`; `error` is None where all went well."""

    workspace: str
    finished_at: datetime
    api_calls: int
    key_used: str | None
    error: str | None


_HISTORY = text("""
    SELECT run_id, started_at, ended_at, duration, status, n_ok, n_failed, first_date, last_date,
        api_calls, error
    FROM daily_kpi_sync_history
    ORDER BY ended_at DESC
    LIMIT :most
""")

_LAST_SYNCS = text("""
    SELECT c.workspace, l.finished_at, l.api_calls, l.key_used, l.error
    FROM clients c
    CROSS JOIN LATERAL (
        SELECT finished_at, api_calls, key_used, error FROM sync_log
        WHERE workspace = c.workspace
        ORDER BY finished_at DESC
        LIMIT 1
    ) l
    WHERE c.active
    ORDER BY c.workspace
""")


def read_history(connection: Connection, most: int) -> list[SyncOfRun]:
    """The last runs, the latest first."""
    rows = connection.execute(_HISTORY, {"most": most}).mappings()
    return [SyncOfRun(**row) for row in rows]


def last_syncs(connection: Connection) -> dict[str, LastSync]:
    """Each active client's last sync, where there was one."""
    rows = connection.execute(_LAST_SYNCS).mappings()
    return {row["workspace"]: LastSync(**row) for row in rows}


@dataclass(frozen=True)
class SyncFailure:
    """A client whose work has failed from `since` on: the last failure's run, time and reason."""

    workspace: str
    run_id: str
    error: str
    since: datetime
    failed_at: datetime


# A run that called nobody, because it worked events in, says nothing of whether Email Bison answers
# again. Healthy clients cost a look into an index that holds failures alone.
_FAILURES = text("""
    SELECT c.workspace, f.run_id, coalesce(f.error, '') AS error, s.since,
        f.finished_at AS failed_at
    FROM clients c
    CROSS JOIN LATERAL (
        SELECT run_id, error, api_calls, finished_at
        FROM sync_log
        WHERE workspace = c.workspace AND status = 'error'
        ORDER BY finished_at DESC
        LIMIT 1
    ) f
    CROSS JOIN LATERAL (
        SELECT coalesce(max(finished_at), '-infinity') AS at
        FROM sync_log
        WHERE workspace = c.workspace AND status = 'ok' AND (api_calls > 0 OR f.api_calls = 0)
    ) w
    CROSS JOIN LATERAL (
        SELECT min(finished_at) AS since
        FROM sync_log
        WHERE workspace = c.workspace AND status = 'error' AND finished_at > w.at
    ) s
    WHERE c.active AND f.finished_at > w.at
    ORDER BY c.workspace
""")


def sync_failures(connection: Connection) -> list[SyncFailure]:
    """The active clients whose last work failed, and was not done well since."""
    return [SyncFailure(**row) for row in connection.execute(_FAILURES).mappings()]
