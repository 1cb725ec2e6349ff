"""Changes tables beside those who use them: with a time limit for locks, tries, and names.

ALTER TABLE waits for each transaction that has read the table, and everybody who comes later waits
for ALTER TABLE. So it waits for a moment only, and tries again after a pause.
"""

import logging
import time
from collections.abc import Callable

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.db.server.engine import reason_of, sqlstate_of
from kpi_pipeline.db.server.urls import for_people
from kpi_pipeline.errors import KpiError

LOCK_SECONDS = 3.0
PAUSE_SECONDS = 5.0
GIVE_UP_SECONDS = 180.0

_LOCK_NOT_AVAILABLE = ("55P03", "40P01")
_NO_RIGHT = "42501"
_LOCK_NAME = "kpi:migrations"

# The limits that a host sets for ordinary work must not end an upgrade half-way through.
_LIMITS = text("""
    SELECT set_config('lock_timeout', CAST(:milliseconds AS text), true),
        set_config('statement_timeout', '0', true),
        set_config('idle_in_transaction_session_timeout', '0', true)
""")
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
# Locks of other transactions on our tables, and the lock of another upgrade. The text of a
# statement of another role is hidden from us.
_HOLDERS = text("""
    SELECT a.pid, a.usename AS role, a.application_name AS program,
        CASE WHEN a.state IS NULL THEN '' ELSE a.state END AS state,
        extract(epoch FROM clock_timestamp() - a.xact_start)::int AS seconds
    FROM pg_stat_activity a
    WHERE a.pid <> pg_backend_pid() AND a.pid IN (
        SELECT l.pid FROM pg_locks l LEFT JOIN pg_class c ON c.oid = l.relation
        WHERE l.granted AND l.database = (
            SELECT oid FROM pg_database WHERE datname = current_database()
        ) AND (
            (l.locktype = 'relation' AND c.relkind = 'r'
                AND c.relnamespace = current_schema()::regnamespace)
            OR (l.locktype = 'advisory' AND l.objsubid = 1
                AND ((l.classid::bigint << 32) | l.objid::bigint)
                    = hashtextextended(:name, 0))
        )
    )
    ORDER BY a.xact_start NULLS LAST
    LIMIT 5
""")

_log = logging.getLogger(__name__)


def alter_tables(engine: Engine, work: Callable[[Connection], None]) -> None:
    """Do `work` in one transaction, by one process at a time, and again while others hold it up.

    Raises:
        KpiError: naming who holds it up, if that takes minutes; or if this user has not the right.
    """
    deadline = time.monotonic() + GIVE_UP_SECONDS
    told: list[str] = []
    while True:
        try:
            with engine.begin() as connection:
                connection.execute(_LIMITS, {"milliseconds": int(LOCK_SECONDS * 1000)})
                connection.execute(_LOCK, {"name": _LOCK_NAME})
                work(connection)
                return
        except DBAPIError as error:
            if sqlstate_of(error) == _NO_RIGHT:
                raise _no_right(engine, error) from None
            if sqlstate_of(error) not in _LOCK_NOT_AVAILABLE:
                raise
        found = holders(engine)
        if time.monotonic() > deadline:
            raise KpiError(
                f"The tables could not be changed within {GIVE_UP_SECONDS:g} s, as others use "
                f"them: {'; '.join(found or told) or 'they ended meanwhile'}. Nothing was changed. "
                "End them, or wait for their end, and run this again."
            )
        if found and found != told:
            told = found
            _log.warning("Waiting for others who use the tables: %s.", "; ".join(found))
        time.sleep(PAUSE_SECONDS)


def holders(engine: Engine) -> list[str]:
    """Who has locks on our tables, as text; the longest-lived transaction comes first."""
    with engine.connect() as connection:
        return [
            f"{it.program or 'a program without a name'} (role {it.role}, process {it.pid}"
            + (f", {it.state}" if it.state else "")
            + (f", for {it.seconds} s)" if it.seconds is not None else ")")
            for it in connection.execute(_HOLDERS, {"name": _LOCK_NAME})
        ]


def _no_right(engine: Engine, error: DBAPIError) -> KpiError:
    with engine.connect() as connection:
        schema, role = connection.execute(
            text("SELECT coalesce(current_schema(), 'public'), current_user")
        ).one()
    return KpiError(
        f"The user {role} may not make or change the tables in the schema {schema} of "
        f"{for_people(engine.url)}: {reason_of(error)}. Have an administrator of the server run "
        f"GRANT CREATE, USAGE ON SCHEMA {schema} TO {role}; in that database, set "
        "KPI_DATABASE_SCHEMA to a schema of its own, or connect as the owner of the tables."
    )
