"""Tests the answer about the database: reached, new enough, and with the rights that it needs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from alembic.runtime.migration import MigrationContext
from sqlalchemy import URL, Engine, text
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.app import open_app
from kpi_pipeline.db.day_zone import ensure_day_zone
from kpi_pipeline.db.migrate import require_current, revisions
from kpi_pipeline.db.registry.clients import all_clients
from kpi_pipeline.db.server.engine import open_engine, require_reachable
from kpi_pipeline.db.server.urls import dagster_url, for_people, parse_url
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.dagster_home import dagster_instance
from kpi_pipeline.services.database import databases_to_upgrade, ready_databases
from kpi_pipeline.settings import Settings

_OLDEST = 14
_SERVER = text("""
    SELECT current_setting('server_version_num')::int AS version, current_user AS role,
        current_database() AS database, current_schema() AS schema,
        current_setting('transaction_read_only')::bool OR pg_is_in_recovery() AS is_read_only,
        has_database_privilege(current_database(), 'CREATE') AS makes_schemas,
        coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS makes_tables,
        to_regclass('alembic_version') IS NOT NULL AS is_ours,
        to_regclass('client_metrics') IS NOT NULL AS has_metrics
""")
_MAY_CREATE = text("""
    SELECT EXISTS (SELECT FROM pg_database WHERE datname = :name) AS exists,
        (SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user) AS may_create,
        current_user AS role
""")


class Tables(Enum):
    """Whether the database has our tables."""

    ABSENT = "none yet"
    BEHIND = "of an earlier version"
    CURRENT = "of this version"


@dataclass(frozen=True)
class InspectedDatabase:
    """A database that can be used. `shown` is its address without a password."""

    shown: str
    version: str
    tables: Tables


def inspect_database(settings: Settings) -> InspectedDatabase:
    """Test the configured databases, and change nothing.

    Raises:
        KpiError: saying what is wrong, and what the operator or the server's administrator can do.
    """
    if settings.database_url is None:
        raise ValueError("the settings have no address of a database")
    kpi = parse_url(settings.database_url.get_secret_value(), "KPI_DATABASE_URL")
    if settings.dagster_database_url is None:
        dagster = dagster_url(kpi)
    else:
        dagster = parse_url(
            settings.dagster_database_url.get_secret_value(), "KPI_DAGSTER_DATABASE_URL"
        )
    with _opened(kpi) as engine:
        if _will_be_created(engine, kpi, "KPI_DATABASE_URL"):
            return InspectedDatabase(for_people(kpi), "", Tables.ABSENT)
        version, tables = _tested(engine, kpi)
    with _opened(dagster) as engine:
        _will_be_created(engine, dagster, "KPI_DAGSTER_DATABASE_URL")
    return InspectedDatabase(for_people(kpi), version, tables)


def create_tables(settings: Settings) -> None:
    """Create the tables of both databases, and the databases where they are missing."""
    with databases_to_upgrade(settings) as ready, dagster_instance(ready) as dagster:
        dagster.upgrade()


def known_clients(settings: Settings) -> tuple[set[tuple[str, int]], str | None]:
    """The identities of the clients that the database has; and a warning about its dates, if any.

    Raises:
        KpiError: if the database can't be reached, or is not at this version of the code.
    """
    warning = None
    with ready_databases(settings) as ready, open_app(ready, any_day_zone=True) as app:
        try:
            ensure_day_zone(app.engine, ready)
        except KpiError as error:
            warning = str(error)
        with app.engine.connect() as connection:
            clients = all_clients(connection)
    return {(it.instance, it.bison_workspace_id) for it in clients}, warning


def _tested(engine: Engine, url: URL) -> tuple[str, Tables]:
    with engine.connect() as connection:
        server = connection.execute(_SERVER).one()
    where = for_people(url)
    version = f"{server.version // 10_000}.{server.version % 10_000}"
    if server.version < _OLDEST * 10_000:
        raise KpiError(f"{where} is PostgreSQL {version}, and {_OLDEST} or newer is needed.")
    if server.is_read_only:
        raise KpiError(
            f"{where} is read-only, as a standby or by its settings. Give the address of the "
            "primary server."
        )
    if server.is_ours:
        return version, _age_of_tables(engine)
    if server.has_metrics:
        raise KpiError(
            f"The schema {server.schema} of {where} has a table client_metrics of another system. "
            "Give a database or a schema of its own."
        )
    if not server.makes_tables:
        schema = server.schema or "public"
        raise KpiError(
            f"The user {server.role} may not create tables in the schema {schema} of {where}. "
            "Have an administrator of the server run, in that database: "
            f"GRANT CREATE, USAGE ON SCHEMA {schema} TO {server.role};"
        )
    return version, Tables.ABSENT


def _age_of_tables(engine: Engine) -> Tables:
    with engine.connect() as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
    if revision is None:
        return Tables.ABSENT
    if revision in revisions().known - {revisions().head}:
        return Tables.BEHIND
    # Raises if a newer version of the code upgraded it.
    require_current(engine)
    return Tables.CURRENT


def _will_be_created(engine: Engine, url: URL, setting: str) -> bool:
    """Whether the server lacks the database, and this user may create it; False if it is there.

    Raises:
        KpiError: if it can't be reached, or is missing and this user may not create it.
    """
    try:
        require_reachable(engine, setting)
    except KpiError:
        server = url.set(database="postgres")
        try:
            with _opened(server) as other, other.connect() as connection:
                found = connection.execute(_MAY_CREATE, {"name": url.database}).one()
        except DBAPIError:
            found = None
        if found is None or found.exists:
            raise
        if not found.may_create:
            raise KpiError(
                f"The server has no database {url.database}, and the user {found.role} may not "
                "create one. Have an administrator of the server run: "
                f"CREATE DATABASE {url.database} OWNER {found.role};"
            ) from None
        return True
    return False


@contextmanager
def _opened(url: URL) -> Iterator[Engine]:
    engine = open_engine(url, pool_size=1)
    try:
        yield engine
    finally:
        engine.dispose()
