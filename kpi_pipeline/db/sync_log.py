"""The log of syncs: what each run did for each client, which clients fail, and unknown fields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import Connection, bindparam, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from kpi_pipeline.db.tables import bison_unknown_fields, sync_log
from kpi_pipeline.db.upsert import upsert

_DURATIONS = ("seconds", "waiting_seconds", "calling_seconds")


@dataclass(frozen=True)
class SyncEntry:
    """What one run did for one client; `error` is None if it succeeded.

    `waiting_seconds` (for a slot or the master key) and `calling_seconds` are parts of `seconds`.
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
    """Write the entry; it replaces an earlier one of the same run and client."""
    row = {**vars(entry), "status": "ok" if entry.error is None else "error"}
    upsert(connection, sync_log, [row])


def read_entries(connection: Connection, run_ids: Sequence[str]) -> list[SyncEntry]:
    """The entries of these runs, ordered by client and time."""
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
    """How many clients the run has finished, with success or not."""
    statement = select(func.count()).select_from(sync_log).where(sync_log.c.run_id == run_id)
    return connection.scalar(statement) or 0


def last_entry_at(connection: Connection) -> datetime | None:
    """When any run last finished a client."""
    found: datetime | None = connection.scalar(select(func.max(sync_log.c.finished_at)))
    return found


def synced_over(
    connection: Connection, since: datetime, first_date: date, last_date: date
) -> set[str]:
    """The clients whose facts of all these dates a sync has fetched since then."""
    statement = (
        select(sync_log.c.workspace)
        .distinct()
        .where(
            sync_log.c.finished_at >= since,
            sync_log.c.status == "ok",
            sync_log.c.api_calls > 0,
            sync_log.c.first_date <= first_date,
            sync_log.c.last_date >= last_date,
        )
    )
    return set(connection.scalars(statement))


@dataclass(frozen=True)
class SyncOfRun:
    """One run, a row of the view `daily_kpi_sync_history`; `status` is ok or error."""

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
    """A client's last row of `sync_log`; `error` is None if it succeeded."""

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
    """The last `most` runs, the latest first."""
    rows = connection.execute(_HISTORY, {"most": most}).mappings()
    return [SyncOfRun(**row) for row in rows]


def last_syncs(connection: Connection) -> dict[str, LastSync]:
    """The last sync of each active client that had one, by workspace."""
    rows = connection.execute(_LAST_SYNCS).mappings()
    return {row["workspace"]: LastSync(**row) for row in rows}


@dataclass(frozen=True)
class SyncFailure:
    """A client that has failed since `since`: run, time and error of its last failure."""

    workspace: str
    run_id: str
    error: str
    since: datetime
    failed_at: datetime


# A run without calls, which only applied events, does not tell whether Email Bison answers again.
# Healthy clients cost one lookup in an index that holds failures alone.
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
    """The active clients that failed and have not succeeded since."""
    return [SyncFailure(**row) for row in connection.execute(_FAILURES).mappings()]


def note_unknown_fields(
    connection: Connection, instance: str, seen: Mapping[tuple[str, str], int], now: datetime
) -> list[tuple[str, str]]:
    """Add to the number of answers in which each (call, field) was seen, at `now`.

    Returns, sorted, those that are new on this instance. Of two processes that see a field first
    at the same time, exactly one gets it.
    """
    if not seen:
        return []
    # Always in the same order: processes do not deadlock.
    rows = [
        {
            "instance": instance,
            "call": call,
            "field": field,
            "answers": answers,
            "first_seen_at": now,
            "last_seen_at": now,
        }
        for (call, field), answers in sorted(seen.items())
    ]
    table = bison_unknown_fields
    added = insert(table).values(rows).on_conflict_do_nothing()
    new = {
        (row.call, row.field)
        for row in connection.execute(added.returning(table.c.call, table.c.field))
    }
    known = [
        {"of_call": row["call"], "of_field": row["field"], "more": row["answers"]}
        for row in rows
        if (row["call"], row["field"]) not in new
    ]
    if known:
        add = update(table).where(
            table.c.instance == instance,
            table.c.call == bindparam("of_call"),
            table.c.field == bindparam("of_field"),
        )
        counted = add.values(
            answers=table.c.answers + bindparam("more"),
            last_seen_at=func.greatest(table.c.last_seen_at, now),
        )
        connection.execute(counted, known)
    return sorted(new)
