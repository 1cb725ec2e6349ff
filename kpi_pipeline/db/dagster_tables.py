"""Reads Dagster's own tables, for processes that do not load Dagster.

It uses plain SQL: the tables `runs`, `kvs` and `daemon_heartbeats` of Dagster's run storage.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import URL, Engine

from kpi_pipeline.db.server.engine import open_engine

# The key in `kvs` of the claim of the process that is the daemon.
DAEMON_CLAIM_KEY = "kpi/daemon"

_CONNECT_SECONDS = 2
_STATEMENT_MILLISECONDS = 2_000


@dataclass(frozen=True)
class DagsterActivity:
    """What Dagster does now.

    `runs` is the number of runs that have not ended, by status in lower case. `heartbeats` is the
    age in seconds of the last heartbeat of each daemon. `claim_age` is the age in seconds of the
    claim of the process that runs them, which is renewed every three seconds; None without one.
    """

    runs: Mapping[str, int] = field(default_factory=dict)
    heartbeats: Mapping[str, float] = field(default_factory=dict)
    claim_age: float | None = None


def open_dagster_database(url: URL) -> Engine:
    """An engine with one connection, which gives up after two seconds: Dagster is optional here."""
    return open_engine(
        url,
        pool_size=1,
        pool_seconds=_CONNECT_SECONDS,
        connect_seconds=_CONNECT_SECONDS,
        refused_seconds=0.0,
        settings={"statement_timeout": str(_STATEMENT_MILLISECONDS)},
    )


# Heartbeats have the time of the daemon's machine, as UTC without a zone; the claim has that of the
# database.
_ACTIVITY = """
    SELECT 'run' AS kind, lower(status) AS name, count(*)::float8 AS value
    FROM runs
    WHERE status IN ('QUEUED', 'NOT_STARTED', 'STARTING', 'STARTED', 'CANCELING')
    GROUP BY status
    UNION ALL
    SELECT 'heartbeat', lower(daemon_type),
        extract(epoch FROM clock_timestamp() AT TIME ZONE 'UTC' - timestamp)::float8
    FROM daemon_heartbeats
    UNION ALL
    SELECT 'claim', '',
        extract(epoch FROM clock_timestamp())::float8 - (value::jsonb ->> 'renewed_at')::float8
    FROM kvs
    WHERE key = %(claim)s AND NOT coalesce((value::jsonb ->> 'released')::boolean, false)
"""


def read_activity(engine: Engine) -> DagsterActivity:
    """The runs that have not ended, and how long ago the daemons were alive.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: if the database is unreachable or has no such tables.
    """
    found: dict[str, dict[str, float]] = {"run": {}, "heartbeat": {}, "claim": {}}
    with engine.connect() as connection:
        for kind, name, value in connection.exec_driver_sql(_ACTIVITY, {"claim": DAEMON_CLAIM_KEY}):
            found[kind][name] = value
    return DagsterActivity(
        {name: int(number) for name, number in found["run"].items()},
        found["heartbeat"],
        found["claim"].get(""),
    )
