"""Dumps of both databases in one file, made while others go on working."""

import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psycopg
from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.db.backup import tables
from kpi_pipeline.db.backup.archive import (
    DatabaseContent,
    DumpWriter,
    Manifest,
    SecretKeyUse,
    TableContent,
    is_dump,
    new_dump,
)
from kpi_pipeline.db.backup.record import LastDump, note_dump
from kpi_pipeline.db.backup.tables import CopiedTable, copied_tables, prepare
from kpi_pipeline.db.dagster_tables import DAEMON_CLAIM_KEY
from kpi_pipeline.db.migrate import revisions
from kpi_pipeline.db.registry.vault import Vault, existing_vault
from kpi_pipeline.db.server.engine import open_engine, reason_of, require_reachable
from kpi_pipeline.db.server.urls import for_people, parse_url
from kpi_pipeline.db.tables import client_api_keys, metadata
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.database import databases_as_they_are
from kpi_pipeline.settings import Settings

KPI, DAGSTER = "kpi", "dagster"

_SETTING = {KPI: "KPI_DATABASE_URL", DAGSTER: "KPI_DAGSTER_DATABASE_URL"}
# Who is the daemon of a database is no content of it: a restore holds that claim itself.
_CLAIM_STAYS = f"key <> '{DAEMON_CLAIM_KEY}'"
_DATED = "kpi-%Y-%m-%dT%H%M%SZ.zip"
_ALL_DATED = "kpi-[0-9]*-[0-9]*-[0-9]*T[0-9]*Z.zip"
_REVISION = text("SELECT version_num FROM alembic_version")


@dataclass(frozen=True)
class MadeDump:
    """A dump that was written and verified; `size` is in bytes."""

    file: Path
    size: int
    manifest: Manifest


def dump(settings: Settings, file: Path) -> MadeDump:
    """Write both databases to a file, read it back, and note it as the last dump.

    Each database is dumped as it was at one instant, both at almost the same one.

    Raises:
        KpiError: if a database can't be read, or the file can't be written.
    """
    if file.exists() and not is_dump(file):
        raise KpiError(f"{file} is another file than a dump, and is kept. Name a new file.")
    with databases_as_they_are(settings) as ready, opened_databases(ready) as engines:
        for name, engine in engines.items():
            require_reachable(engine, _SETTING[name])
        with new_dump(file) as writer, plain_errors("The dump"), ExitStack() as stack:
            # Both are begun before the first row is read.
            snapshots = {
                name: stack.enter_context(_snapshot(engine)) for name, engine in engines.items()
            }
            kpi = snapshots[KPI]
            databases = {
                name: _written(writer, name, connection) for name, connection in snapshots.items()
            }
            vault = existing_vault(ready.secret_key, ready.state_dir)
            manifest = Manifest(
                made_at=kpi.execute(text("SELECT now()")).scalar_one(),
                version=version("kpi-pipeline"),
                dagster_version=version("dagster"),
                secret_keys=use_of_keys(
                    kpi.scalars(select(client_api_keys.c.encrypted_key)), vault
                ),
                databases=databases,
            )
            writer.finish(manifest)
        with plain_errors("Noting the dump"), engines[DAGSTER].begin() as connection:
            note_dump(connection, last_dump_of(manifest, file))
    return MadeDump(file, file.stat().st_size, manifest)


def dump_into(settings: Settings, folder: Path, keep: int | None) -> tuple[MadeDump, list[Path]]:
    """As `dump`, into a file of the folder that has the time in its name.

    With `keep`, only so many of these files stay; return the new one, and those that were deleted.
    """
    made = dump(settings, folder / utc_now().strftime(_DATED))
    dated = sorted(folder.glob(_ALL_DATED), reverse=True)
    old = [] if keep is None else dated[keep:]
    for file in old:
        file.unlink()
    return made, old


def last_dump_of(manifest: Manifest, file: Path) -> LastDump:
    """What to remember of this dump."""
    size = file.stat().st_size
    return LastDump(manifest.made_at, socket.gethostname(), str(file.resolve()), size)


@contextmanager
def opened_databases(settings: Settings) -> Iterator[Mapping[str, Engine]]:
    """Engines of both databases, for the settings of `databases_as_they_are`."""
    addresses = {KPI: settings.database_url, DAGSTER: settings.dagster_database_url}
    with ExitStack() as stack:
        engines = {}
        for name, address in addresses.items():
            if address is None:
                raise ValueError("the settings lack the address of a database")
            engines[name] = open_engine(parse_url(address.get_secret_value(), _SETTING[name]))
            stack.callback(engines[name].dispose)
        yield engines


def tables_of(name: str, connection: Connection) -> list[CopiedTable]:
    """The tables of one of the two databases, each after those that it refers to."""
    if name == KPI:
        return copied_tables(connection, metadata.tables)
    # Imported late, as it imports Dagster.
    from kpi_pipeline.orchestration.dagster_private import STORAGE_TABLES

    return copied_tables(connection, STORAGE_TABLES, {"kvs": _CLAIM_STAYS})


def revision_of(connection: Connection) -> str | None:
    """Which of its migrations this database has run; None if it has no tables."""
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    found: str | None = connection.scalar(_REVISION)
    return found


def use_of_keys(tokens: Iterable[bytes], vault: Vault | None) -> SecretKeyUse:
    """Which secret keys of the vault decrypt these tokens, and how many none does."""
    use = SecretKeyUse()
    for token in tokens:
        found = None if vault is None else vault.fingerprint_for(bytes(token))
        if found is None:
            use.unreadable += 1
        else:
            use.readable[found] = use.readable.get(found, 0) + 1
    return use


@contextmanager
def plain_errors(what: str) -> Iterator[None]:
    """Errors of the server as sentences; COPY is no statement of SQLAlchemy's."""
    try:
        yield
    except (psycopg.Error, DBAPIError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(cause, psycopg.errors.LockNotAvailable):
            raise KpiError(
                f"{what} waited {tables.LOCK_SECONDS} s for a table that another program has "
                "locked, and gave up; nothing was changed. Stop what works on the databases, and "
                "run this again."
            ) from None
        if isinstance(error, DBAPIError):
            reason = reason_of(error)
        else:
            # Without the row that its details may quote.
            reason = (error.diag.message_primary or str(error)).strip().rstrip(".")
        raise KpiError(f"{what} failed, and nothing was changed: {reason}.") from None


@contextmanager
def _snapshot(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        prepare(connection)
        yield connection


def _written(writer: DumpWriter, name: str, connection: Connection) -> DatabaseContent:
    revision = revision_of(connection)
    address = for_people(connection.engine.url)
    if revision is None:
        raise KpiError(f"The database {address} has no tables yet. Run `kpi db upgrade`.")
    if name == KPI and revision not in revisions().known:
        raise KpiError(
            f"The database {address} is at revision {revision}, which this version of the code "
            "does not know. Install the version that upgraded it."
        )
    written = {}
    for table in tables_of(name, connection):
        content = writer.write(name, table.name, table.read(connection))
        written[table.name] = TableContent(
            lines=content.lines,
            checksum=content.checksum,
            columns=list(table.columns),
            # Read later than the rows, so it is never behind them.
            sequences=table.read_sequences(connection),
        )
    return DatabaseContent(revision=revision, tables=written)
