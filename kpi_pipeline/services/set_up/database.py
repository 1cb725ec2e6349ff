"""Tests the answer about the database: reached, new enough, and with the rights that it needs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from alembic.runtime.migration import MigrationContext
from pydantic import ValidationError
from sqlalchemy import URL, Engine, text
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.app import open_app
from kpi_pipeline.db.day_zone import ensure_day_zone
from kpi_pipeline.db.migrate import require_current, revisions
from kpi_pipeline.db.registry.clients import all_clients
from kpi_pipeline.db.server.addresses import (
    DAGSTER_SCHEMA,
    dagster_address,
    direct_address,
    kpi_address,
)
from kpi_pipeline.db.server.engine import (
    open_engine,
    require_reachable,
    require_usable_by_dagster,
)
from kpi_pipeline.db.server.rights import ServerState, read_server
from kpi_pipeline.db.server.urls import for_people, schema_of
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.dagster_home import dagster_instance
from kpi_pipeline.services.database import databases_to_upgrade, ready_databases
from kpi_pipeline.settings import Settings

_OLDEST = 14
_TABLES = text("""
    SELECT to_regclass('raw_bison_stats') IS NOT NULL AS is_ours,
        to_regclass('client_metrics') IS NOT NULL AS has_metrics
""")
_MAY_CREATE = text("""
    SELECT EXISTS (SELECT FROM pg_database WHERE datname = :name) AS exists,
        (SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user) AS may_create,
        current_user AS role
""")
_HAS_SCHEMA = text("""
    SELECT coalesce(has_schema_privilege(to_regnamespace(:name)::oid, 'CREATE'), false)
""")


class Tables(Enum):
    """Whether the database has our tables."""

    ABSENT = "none yet"
    BEHIND = "of an earlier version"
    CURRENT = "of this version"


@dataclass(frozen=True)
class InspectedDatabase:
    """A database that can be used. `shown` is its address without a password.

    `version` is empty where the database will be created. `dagster_schema` is where Dagster's
    tables have to be, if a database of their own is neither there nor may be created.
    """

    shown: str
    version: str
    tables: Tables
    dagster_schema: str | None


class SchemaTakenError(KpiError):
    """The schema has tables of another system: the KPI tables need another one."""


def checked_schema(name: str) -> str:
    """The name of a schema, if it can be one.

    Raises:
        KpiError: if not.
    """
    try:
        Settings(database_schema=name)
    except ValidationError:
        raise KpiError(
            f"{name!r} is no name of a schema. Write small letters, digits and _, such as kpi."
        ) from None
    return name


def is_behind_pooler(settings: Settings) -> bool:
    """Whether a pooler is before the KPI database; False as well if it can't be reached."""
    try:
        with _opened(kpi_address(settings)) as engine, engine.connect() as connection:
            return read_server(connection).pooled
    except DBAPIError:
        return False


def inspect_database(settings: Settings) -> InspectedDatabase:
    """Test the configured databases, and change nothing.

    Raises:
        SchemaTakenError: if another system has tables of the same names there.
        KpiError: saying what is wrong, and what the operator or the server's administrator can do.
    """
    kpi = kpi_address(settings)
    with _opened(kpi) as engine:
        if _will_be_created(engine, kpi, "KPI_DATABASE_URL"):
            return InspectedDatabase(for_people(kpi), "", Tables.ABSENT, None)
        with engine.connect() as connection:
            server = read_server(connection)
        tables = _tables(engine, kpi, server)
    if settings.database_direct_url is not None:
        with _opened(direct_address(settings)) as engine:
            require_reachable(engine, "KPI_DATABASE_DIRECT_URL")
    schema = _place_of_dagster(settings, server)
    return InspectedDatabase(for_people(kpi), server.version, tables, schema)


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


def _tables(engine: Engine, url: URL, server: ServerState) -> Tables:
    where = for_people(url)
    if server.version_number < _OLDEST * 10_000:
        raise KpiError(f"{where} is PostgreSQL {server.version}; {_OLDEST} or newer is needed.")
    if server.read_only:
        raise KpiError(
            f"{where} is read-only, as a standby or by its settings. Give the address of the "
            "primary server."
        )
    with engine.connect() as connection:
        found = connection.execute(_TABLES).one()
        revision = MigrationContext.configure(connection).get_current_revision()
    if found.is_ours and revision is not None:
        if revision in revisions().known - {revisions().head}:
            return Tables.BEHIND
        # Raises if a newer version of the code upgraded it.
        require_current(engine)
        return Tables.CURRENT
    schema = server.schema or schema_of(url) or "public"
    if found.has_metrics:
        raise SchemaTakenError(
            f"The schema {schema} of {where} has a table client_metrics of another system. Give "
            "the KPI tables a schema of their own (--schema kpi); `kpi migrate-from` takes over "
            "what the other system has."
        )
    if server.schema is None and not server.may_make_schemas:
        raise KpiError(
            f"{where} has no schema {schema}, and the user {server.role} may not create one. Have "
            "an administrator of the server run, in that database: "
            f"CREATE SCHEMA {schema} AUTHORIZATION {server.role};"
        )
    if server.schema is not None and not server.may_make_tables:
        raise KpiError(
            f"The user {server.role} may not create tables in the schema {schema} of {where}. "
            "Have an administrator of the server run, in that database: "
            f"GRANT CREATE, USAGE ON SCHEMA {schema} TO {server.role};"
        )
    return Tables.ABSENT


def _place_of_dagster(settings: Settings, server: ServerState) -> str | None:
    """The schema that Dagster's tables need, or None if the settings name a place that will do."""
    dagster = dagster_address(settings)
    own = settings.dagster_database_url is not None
    if own or settings.dagster_database_schema is not None:
        with _opened(dagster) as engine:
            if not _will_be_created(engine, dagster, "KPI_DAGSTER_DATABASE_URL"):
                require_usable_by_dagster(engine)
        return None
    try:
        with _opened(dagster) as engine:
            _will_be_created(engine, dagster, "KPI_DAGSTER_DATABASE_URL")
    except KpiError as error:
        reason = str(error)
    else:
        return None
    with _opened(direct_address(settings)) as engine, engine.connect() as connection:
        has_schema = connection.scalar(_HAS_SCHEMA, {"name": DAGSTER_SCHEMA})
    if not has_schema and not server.may_make_schemas:
        raise KpiError(
            f"Dagster's tables need a place of their own. {reason} Or have them run, in the KPI "
            f"database: CREATE SCHEMA {DAGSTER_SCHEMA} AUTHORIZATION {server.role};"
        )
    in_schema = settings.model_copy(update={"dagster_database_schema": DAGSTER_SCHEMA})
    with _opened(dagster_address(in_schema)) as engine:
        require_usable_by_dagster(engine)
    return DAGSTER_SCHEMA


def _will_be_created(engine: Engine, url: URL, setting: str) -> bool:
    """Whether the server lacks the database, and this user may create it; False if it is there.

    Raises:
        KpiError: if it can't be reached, or is missing and this user may not create it.
    """
    try:
        require_reachable(engine, setting)
    except KpiError:
        server = url.set(database="postgres").difference_update_query(["options"])
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
    engine = open_engine(url, pool_size=1, refused_seconds=5.0)
    try:
        yield engine
    finally:
        engine.dispose()
