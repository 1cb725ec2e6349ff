"""Connections to the KPI database, and plain errors where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL, Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from kpi_pipeline.db.server.urls import for_people
from kpi_pipeline.errors import KpiError

# How long a thread waits for a connection of the pool; others hold one for a transaction each.
_POOL_SECONDS = 60.0


def open_engine(url: URL, *, pool_size: int = 8) -> Engine:
    """An engine whose sessions use UTC: every instant that is read is aware and comparable.

    It never has more than `pool_size` connections: threads wait for one that is free. So how many
    clients a run works on at once does not change how many connections a server has to allow.
    """
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=_POOL_SECONDS,
        # The connection that was used last has its statements prepared and its catalog read.
        pool_use_lifo=True,
        pool_pre_ping=True,
        # Errors must not carry rows into logs.
        hide_parameters=True,
        connect_args={
            "connect_timeout": 10,
            "application_name": "kpi_pipeline",
            "options": "-c timezone=UTC",
        },
    )


def require_reachable(engine: Engine, setting: str) -> None:
    """Open one connection.

    Raises:
        KpiError: naming `setting`, the server and its own message, if that fails.
    """
    if (reason := _connection_problem(engine)) is not None:
        raise KpiError(
            f"The database {for_people(engine.url)} cannot be reached: {reason}. "
            f"Check {setting}, and that the server runs and lets this user in."
        )


def is_reachable(url: URL) -> bool:
    """Whether a new connection to this database opens."""
    engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 5})
    return _connection_problem(engine) is None


def ensure_database(url: URL) -> None:
    """Create the database that `url` names unless its server has it; processes wait for each other.

    Raises:
        KpiError: if the server can't be reached, or the database is missing and this user may not
            create it.
    """
    direct = create_engine(url)
    reason = _connection_problem(direct)
    direct.dispose()
    if reason is None:
        return
    maintenance = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    try:
        with maintenance.connect() as connection:
            connection.execute(
                text("SELECT pg_advisory_lock(hashtextextended('kpi:create-database', 0))")
            )
            found = connection.execute(
                text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": url.database}
            ).first()
            if found is None:
                name = maintenance.dialect.identifier_preparer.quote(str(url.database))
                connection.execute(text(f"CREATE DATABASE {name}"))
    except OperationalError:
        raise KpiError(
            f"The database {for_people(url)} cannot be reached: {reason}. "
            "Check the address, and that the server runs and lets this user in."
        ) from None
    except (DBAPIError, UnicodeError) as error:
        raise KpiError(
            f"The database {for_people(url)} cannot be created: {reason_of(error)}. "
            "Create it by hand, or give the user the right to."
        ) from None
    finally:
        maintenance.dispose()


@contextmanager
def session_lock(engine: Engine, name: str) -> Iterator[Connection]:
    """Hold the advisory lock `name`, across processes; a crash of the holder frees it."""
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(hashtextextended(:n, 0))"), {"n": name})
        connection.commit()
        try:
            yield connection
        finally:
            connection.rollback()
            connection.execute(
                text("SELECT pg_advisory_unlock(hashtextextended(:n, 0))"), {"n": name}
            )
            connection.commit()


def reason_of(error: DBAPIError | UnicodeError) -> str:
    """The driver's message about each attempt, without its headings and questions."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    lines = [line.strip().removeprefix("- ") for line in str(cause).splitlines()]
    kept = [line.rstrip(".") for line in lines if line and not line.endswith((":", "?"))]
    return "; ".join(kept) or "no reason was given"


def _connection_problem(engine: Engine) -> str | None:
    """Why no connection can be opened, or None if one can."""
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except (DBAPIError, UnicodeError) as error:
        # Python rejects some host names, and libpq some options, before they ask a server.
        return reason_of(error)
    return None
