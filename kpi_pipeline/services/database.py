"""The two databases of an installation, reachable and at the version of the code."""

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pydantic import SecretStr
from sqlalchemy import URL, Engine
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.db.day_zone import with_measured_zone
from kpi_pipeline.db.migrate import require_current, upgrade
from kpi_pipeline.db.server.addresses import dagster_address, direct_address, kpi_address
from kpi_pipeline.db.server.embedded import EmbeddedServer, embedded_server
from kpi_pipeline.db.server.engine import (
    ensure_database,
    open_engine,
    reason_of,
    require_reachable,
    require_usable_by_dagster,
    sqlstate_of,
)
from kpi_pipeline.db.server.sessions import is_refused
from kpi_pipeline.db.server.slots import CONNECTIONS
from kpi_pipeline.db.server.urls import with_schema
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import Settings
from kpi_pipeline.settings.places import concerns_state_folder, state_folder_error

_ONE_DATABASE = (
    "Or keep Dagster's tables in a schema of the KPI database: KPI_DAGSTER_DATABASE_SCHEMA=dagster."
)


@contextmanager
def ready_databases(settings: Settings, *, dagster_too: bool = True) -> Iterator[Settings]:
    """The settings with both database addresses, valid while the block runs, and the day zone.

    That is the measured zone where one was adopted and KPI_BISON_TIMEZONE is unset.

    Without a configured address, the embedded server is started and its tables are upgraded. A
    configured server is upgraded by its operator. With `dagster_too=False`, Dagster's database
    may be down.

    Raises:
        KpiError: if a database is unreachable, or a configured one is behind the code.
    """
    with ExitStack() as stack:
        embedded = settings.database_url is None
        kpi, dagster = _addresses(settings, stack)
        if embedded:
            upgrade_databases(kpi, dagster)
        else:
            _require_kpi(kpi)
            if dagster_too:
                _require_dagster(dagster)
        yield _with_measured_zone(_with_addresses(settings, kpi, dagster), kpi)


@contextmanager
def databases_to_upgrade(settings: Settings) -> Iterator[Settings]:
    """Like `ready_databases`, but upgrade a configured server as well."""
    with ExitStack() as stack:
        kpi, dagster = _addresses(settings, stack)
        if settings.database_url is None or settings.database_direct_url is None:
            upgrade_databases(kpi, dagster)
        else:
            upgrade_databases(direct_address(settings), dagster)
            # Both must be addresses of the same database.
            _require_kpi(kpi)
        yield _with_addresses(settings, kpi, dagster)


@contextmanager
def databases_as_they_are(settings: Settings) -> Iterator[Settings]:
    """Like `ready_databases`, but nothing is made, upgraded or required; for dumps and restores."""
    with ExitStack() as stack:
        yield _with_addresses(settings, *_addresses(settings, stack))


def embedded_of(settings: Settings) -> EmbeddedServer | None:
    """The embedded server that holds the KPI database; None where another server does.

    Takes the settings before `ready_databases`, or those that it yields.
    """
    server = EmbeddedServer(settings.state_dir)
    if settings.database_url is None:
        return server
    return server if server.is_at(kpi_address(settings)) else None


def storage_error(error: Exception, settings: Settings) -> KpiError | None:
    """What to do about a state folder or a database that can't be written; None for other errors.

    These come up wherever the first file or row is written.
    """
    if isinstance(error, OSError) and concerns_state_folder(settings.state_dir, error):
        return state_folder_error(settings.state_dir, error)
    if not isinstance(error, DBAPIError):
        return None
    if is_refused(error):
        return KpiError(
            f"The database allows no further connection: {reason_of(error)}. All parts of this "
            f"installation together need {CONNECTIONS} at most: end other programs, or raise "
            "max_connections or the limit of the role."
        )
    match sqlstate_of(error):
        case "53100":
            if settings.database_url is None:
                return state_folder_error(settings.state_dir, OSError(errno.ENOSPC, ""))
            return KpiError(
                "The disk of the database is full: the server could not write. Free some space "
                "there, then run this again."
            )
        case "25006":
            return KpiError(
                "The database is read-only at the moment, as a standby or by its settings. Check "
                "that KPI_DATABASE_URL names the primary server, then run this again."
            )
        case "42501":
            return KpiError(
                f"The user of KPI_DATABASE_URL lacks a right: {reason_of(error)}. Connect as the "
                "owner of the tables, or have that user grant it."
            )
        case "57014":
            return KpiError(
                "The server ended a statement that took longer than it allows "
                f"({reason_of(error)}). Raise the limit of this role: ALTER ROLE … SET "
                "statement_timeout = '5min'."
            )
        case "25P03" | "25P04":
            return KpiError(
                f"The server ended a transaction after its time-out ({reason_of(error)}). Run this "
                "again; if it happens often, raise that time-out for this role."
            )
    return None


def upgrade_databases(kpi: URL, dagster: URL) -> None:
    """Create both databases where they are missing, and upgrade the KPI tables.

    Raises:
        KpiError: if the server is unreachable, or this user may not create a database, a schema or
            tables.
    """
    ensure_database(kpi)
    try:
        ensure_database(dagster)
    except KpiError as error:
        raise KpiError(f"{error} {_ONE_DATABASE}") from None
    with _opened(dagster) as engine:
        require_usable_by_dagster(engine)
    with _opened(kpi) as engine:
        require_reachable(engine, "KPI_DATABASE_URL")
        upgrade(engine)


@contextmanager
def _opened(url: URL) -> Iterator[Engine]:
    engine = open_engine(url, pool_size=1)
    try:
        yield engine
    finally:
        engine.dispose()


def _with_measured_zone(settings: Settings, kpi: URL) -> Settings:
    with _opened(kpi) as engine:
        return with_measured_zone(engine, settings)


def _require_kpi(url: URL) -> None:
    with _opened(url) as engine:
        require_reachable(engine, "KPI_DATABASE_URL")
        require_current(engine)


def _require_dagster(url: URL) -> None:
    # Checked before anything is written: Dagster itself would retry for a while, and end with a
    # stack trace.
    with _opened(url) as engine:
        try:
            require_reachable(engine, "KPI_DAGSTER_DATABASE_URL")
        except KpiError as error:
            raise KpiError(f"{error} If it was never created, run `kpi db upgrade`.") from None
        require_usable_by_dagster(engine)


def _addresses(settings: Settings, stack: ExitStack) -> tuple[URL, URL]:
    if settings.database_url is not None:
        return kpi_address(settings), dagster_address(settings)
    embedded = stack.enter_context(embedded_server(settings.state_dir))
    kpi = with_schema(embedded, settings.database_schema)
    return kpi, dagster_address(settings, embedded)


def _with_addresses(settings: Settings, kpi: URL, dagster: URL) -> Settings:
    return settings.model_copy(
        update={
            "database_url": SecretStr(kpi.render_as_string(hide_password=False)),
            "dagster_database_url": SecretStr(dagster.render_as_string(hide_password=False)),
        }
    )
