"""How syncs went: run by run, and each client's last one."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import Connection, text


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
