"""Connections to the databases, and plain errors where there is none."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL, Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from kpi_pipeline.db.server.pool import ReturningPool
from kpi_pipeline.db.server.sessions import Sessions, is_pooled
from kpi_pipeline.db.server.urls import for_people, schema_of, session_options
from kpi_pipeline.errors import KpiError

# How long a thread waits for a connection of the pool; others hold one for a transaction each.
_POOL_SECONDS = 60.0
# How long a server that has as many connections as it allows is asked for one.
REFUSED_SECONDS = 60.0
_CONNECT_SECONDS = 10
_UTC = {"timezone": "UTC"}

# What `CREATE DATABASE` and `CREATE SCHEMA` end with if another process was faster.
_MADE_MEANWHILE = ("42P04", "42P06", "23505")


def open_engine(
    url: URL,
    *,
    pool_size: int = 8,
    pool_seconds: float = _POOL_SECONDS,
    connect_seconds: int = _CONNECT_SECONDS,
    refused_seconds: float = REFUSED_SECONDS,
    settings: Mapping[str, str] | None = None,
) -> Engine:
    """An engine whose sessions use UTC: every instant that is read is aware and comparable.

    It never has more than `pool_size` connections: threads wait for one that is free. So how many
    clients a run works on at once does not change how many connections a server has to allow. Those
    that are idle are given back. `settings` are more of PostgreSQL's, for each session.
    """
    return _engine(
        url,
        connect_seconds,
        refused_seconds,
        {**_UTC, **(settings or {})},
        poolclass=ReturningPool,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_seconds,
        # The connection that was used last has its statements prepared and its catalog read.
        pool_use_lifo=True,
        pool_pre_ping=True,
    )


def open_unpooled(
    url: URL,
    *,
    connect_seconds: int = _CONNECT_SECONDS,
    isolation_level: str = "READ COMMITTED",
    **connect_args: Any,
) -> Engine:
    """As `open_engine`, for a connection now and then, which is closed after use.

    `connect_args` are options of libpq.
    """
    return _engine(
        url,
        connect_seconds,
        0.0,
        _UTC,
        poolclass=NullPool,
        isolation_level=isolation_level,
        more=connect_args,
    )


def pooled_engine(url: str, pool_size: int, settings: Mapping[str, str]) -> Engine:
    """An engine for Dagster's storages, with its own driver, and without transactions.

    It keeps up to `pool_size` connections, and opens more where a thread needs them.
    """
    return _engine(
        make_url(url),
        _CONNECT_SECONDS,
        REFUSED_SECONDS,
        settings,
        poolclass=ReturningPool,
        isolation_level="AUTOCOMMIT",
        pool_size=pool_size,
        max_overflow=20,
        # A restart of the server, or a firewall that drops idle connections, costs no event.
        pool_pre_ping=True,
        pool_recycle=600,
    )


def _engine(
    url: URL,
    connect_seconds: int,
    refused_seconds: float,
    settings: Mapping[str, str],
    more: Mapping[str, Any] | None = None,
    **options: Any,
) -> Engine:
    defaults = {"connect_timeout": connect_seconds, "application_name": "kpi_pipeline"}
    # An address has its own.
    given = {name: it for name, it in {**defaults, **(more or {})}.items() if name not in url.query}
    # Errors must not carry rows into logs.
    engine = create_engine(url, hide_parameters=True, connect_args=given, **options)
    Sessions(engine, settings, refused_seconds)
    return engine


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
    return _connection_problem(open_unpooled(url, connect_seconds=5)) is None


def ensure_database(url: URL) -> None:
    """Create the database that `url` names, and its schema, unless its server has them.

    Raises:
        KpiError: if the server can't be reached, or one of them is missing and this user may not
            create it.
    """
    direct = open_unpooled(url)
    reason = _connection_problem(direct)
    if reason is None:
        _ensure_schema(direct)
        return
    name = direct.dialect.identifier_preparer.quote(str(url.database))
    maintenance = open_unpooled(
        url.set(database="postgres").difference_update_query(["options"]),
        isolation_level="AUTOCOMMIT",
    )
    try:
        with maintenance.connect() as connection:
            found = connection.execute(
                text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": url.database}
            ).first()
            if found is None:
                connection.exec_driver_sql(f"CREATE DATABASE {name}")
    except OperationalError:
        raise KpiError(
            f"The database {for_people(url)} cannot be reached: {reason}. "
            "Check the address, and that the server runs and lets this user in."
        ) from None
    except (DBAPIError, UnicodeError) as error:
        if not _is_made_meanwhile(error):
            raise KpiError(
                f"The database {for_people(url)} cannot be created: {reason_of(error)}. "
                "Create it by hand, or give the user the right to."
            ) from None
    _ensure_schema(direct)


def _ensure_schema(engine: Engine) -> None:
    schema = schema_of(engine.url)
    if schema is None:
        return
    name = engine.dialect.identifier_preparer.quote(schema)
    try:
        with engine.begin() as connection:
            if connection.scalar(text("SELECT to_regnamespace(:name)"), {"name": name}) is None:
                connection.exec_driver_sql(f"CREATE SCHEMA {name}")
    except DBAPIError as error:
        if _is_made_meanwhile(error):
            return
        raise KpiError(
            f"The schema {schema} of {for_people(engine.url)} cannot be created: "
            f"{reason_of(error)}. Have an administrator of the server run, in that database: "
            f"CREATE SCHEMA {name} AUTHORIZATION {engine.url.username};"
        ) from None


def require_usable_by_dagster(engine: Engine) -> None:
    """Check that Dagster's tables have a place of their own, which a pooler does not hide.

    Raises:
        KpiError: if the KPI tables are there, or a pooler would drop the schema of the address.
    """
    with engine.connect() as connection:
        taken = connection.scalar(text("SELECT to_regclass('raw_bison_stats')")) is not None
        pooled = is_pooled(connection)
    options = session_options(engine.url).settings
    if pooled and options:
        raise KpiError(
            f"Dagster's tables need {' and '.join(options)} of {for_people(engine.url)} set for a "
            "whole session, and a pooler is between. Set KPI_DATABASE_DIRECT_URL to the same "
            "database without the pooler, or give Dagster a database without options "
            "(KPI_DAGSTER_DATABASE_URL)."
        )
    if taken:
        raise KpiError(
            f"{for_people(engine.url)} holds the KPI tables, where Dagster's would collide with "
            "them. Set KPI_DAGSTER_DATABASE_SCHEMA=dagster, or name another database in "
            "KPI_DAGSTER_DATABASE_URL."
        )


def sqlstate_of(error: BaseException) -> str | None:
    """The SQLSTATE of an error of either driver; None for one without, as of a new connection."""
    cause = getattr(error, "orig", None) or error
    # psycopg calls it sqlstate, psycopg2 pgcode.
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return None if state is None else str(state)


def reason_of(error: DBAPIError | UnicodeError) -> str:
    """The driver's message about each attempt, without its headings and questions."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    lines = [line.strip().removeprefix("- ") for line in str(cause).splitlines()]
    kept = [line.rstrip(".") for line in lines if line and not line.endswith((":", "?"))]
    return "; ".join(kept) or "no reason was given"


def _is_made_meanwhile(error: BaseException) -> bool:
    return sqlstate_of(error) in _MADE_MEANWHILE


def _connection_problem(engine: Engine) -> str | None:
    """Why no connection can be opened, or None if one can."""
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except (DBAPIError, UnicodeError) as error:
        # Python rejects some host names, and libpq some options, before they ask a server.
        return reason_of(error)
    return None
