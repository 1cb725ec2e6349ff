"""The two databases of an installation, reachable and at the version of the code."""

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pydantic import SecretStr
from sqlalchemy import URL

from kpi_pipeline.db.day_zone import with_measured_zone
from kpi_pipeline.db.migrate import require_current, upgrade
from kpi_pipeline.db.server.embedded import EmbeddedServer, embedded_server
from kpi_pipeline.db.server.engine import ensure_database, open_engine, require_reachable
from kpi_pipeline.db.server.urls import dagster_url, parse_url
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import Settings
from kpi_pipeline.settings.places import concerns_state_folder, state_folder_error


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
            engine = open_engine(kpi)
            stack.callback(engine.dispose)
            require_reachable(engine, "KPI_DATABASE_URL")
            require_current(engine)
            if dagster_too:
                _require_dagster(dagster)
        yield _with_measured_zone(_with_addresses(settings, kpi, dagster), kpi)


@contextmanager
def databases_to_upgrade(settings: Settings) -> Iterator[Settings]:
    """Like `ready_databases`, but upgrade a configured server as well."""
    with ExitStack() as stack:
        kpi, dagster = _addresses(settings, stack)
        upgrade_databases(kpi, dagster)
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
    url = parse_url(settings.database_url.get_secret_value(), "KPI_DATABASE_URL")
    return server if server.is_at(url) else None


def storage_error(error: Exception, settings: Settings) -> KpiError | None:
    """What to do about a state folder or a database that can't be written; None for other errors.

    These come up wherever the first file or row is written.
    """
    if isinstance(error, OSError) and concerns_state_folder(settings.state_dir, error):
        return state_folder_error(settings.state_dir, error)
    match getattr(getattr(error, "orig", None), "sqlstate", None):
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
    return None


def upgrade_databases(kpi: URL, dagster: URL) -> None:
    """Create both databases where they are missing, and upgrade the KPI tables.

    Raises:
        KpiError: if the server is unreachable, or this user may not create a database.
    """
    for url in (kpi, dagster):
        ensure_database(url)
    engine = open_engine(kpi)
    try:
        require_reachable(engine, "KPI_DATABASE_URL")
        upgrade(engine)
    finally:
        engine.dispose()


def _with_measured_zone(settings: Settings, kpi: URL) -> Settings:
    engine = open_engine(kpi)
    try:
        return with_measured_zone(engine, settings)
    finally:
        engine.dispose()


def _require_dagster(url: URL) -> None:
    # Checked before anything is written: Dagster itself would retry for a while, and end with a
    # stack trace.
    engine = open_engine(url)
    try:
        require_reachable(engine, "KPI_DAGSTER_DATABASE_URL")
    except KpiError as error:
        raise KpiError(f"{error} If it was never created, run `kpi db upgrade`.") from None
    finally:
        engine.dispose()


def _addresses(settings: Settings, stack: ExitStack) -> tuple[URL, URL]:
    if settings.database_url is None:
        kpi = stack.enter_context(embedded_server(settings.state_dir))
    else:
        kpi = parse_url(settings.database_url.get_secret_value(), "KPI_DATABASE_URL")
    if settings.dagster_database_url is None:
        return kpi, dagster_url(kpi)
    dagster = settings.dagster_database_url.get_secret_value()
    return kpi, parse_url(dagster, "KPI_DAGSTER_DATABASE_URL")


def _with_addresses(settings: Settings, kpi: URL, dagster: URL) -> Settings:
    return settings.model_copy(
        update={
            "database_url": SecretStr(kpi.render_as_string(hide_password=False)),
            "dagster_database_url": SecretStr(dagster.render_as_string(hide_password=False)),
        }
    )
