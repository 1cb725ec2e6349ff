"""The return of a dump into the configured databases, on this machine or another."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from sqlalchemy import Connection, Engine, text

from kpi_pipeline.db.backup.archive import Content, Dump, Manifest, content_of, open_dump
from kpi_pipeline.db.backup.record import note_dump
from kpi_pipeline.db.backup.tables import empty_all, prepare
from kpi_pipeline.db.migrate import move_to, revisions
from kpi_pipeline.db.readers import close_to_others, our_objects
from kpi_pipeline.db.registry.vault import Vault, existing_vault, key_file
from kpi_pipeline.db.server.engine import ensure_database, is_reachable
from kpi_pipeline.db.server.urls import for_people
from kpi_pipeline.db.tables import client_api_keys
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.domain.formatting import counted, listed
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.backup import (
    DAGSTER,
    KPI,
    MadeDump,
    dump,
    last_dump_of,
    opened_databases,
    plain_errors,
    revision_of,
    tables_of,
    use_of_keys,
)
from kpi_pipeline.services.dagster_home import dagster_instance
from kpi_pipeline.services.database import databases_as_they_are, databases_to_upgrade
from kpi_pipeline.services.running_dagster import one_daemon
from kpi_pipeline.settings import Settings

_API_KEYS = client_api_keys.name
# Into the others Dagster writes as soon as it makes them.
_USED_BY_DAGSTER = ("runs", "event_logs", "dynamic_partitions", "bulk_actions")
_NOTHING = Content(lines=0, checksum=0)
_SHOWN = 3
_OTHERS = text("""
    SELECT count(*) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
""")


def check(settings: Settings, file: Path, *, without_api_keys: bool = False) -> Manifest:
    """Read a dump through; check that this version and the secret key of this installation fit it.

    Raises:
        KpiError: if it is damaged or of a newer version, or its API keys can't be decrypted here.
    """
    with open_dump(file) as opened:
        _check(settings, opened, without_api_keys=without_api_keys)
        return opened.manifest


def restore(
    settings: Settings,
    file: Path,
    say: Callable[[str], None],
    *,
    replacing: bool = False,
    without_api_keys: bool = False,
    without_dagster: bool = False,
) -> Manifest:
    """Bring what a dump holds into the configured databases, and upgrade the KPI tables.

    All of it is read back and compared before it is committed: each database is restored whole, or
    is as it was. `replacing` deletes what they hold; otherwise they have to be empty. `say` gets a
    sentence about what takes time.

    Raises:
        KpiError: as `check`; if the databases hold something, or a daemon works on them; or if what
            they hold in the end differs from the dump.
    """
    with (
        open_dump(file) as opened,
        databases_as_they_are(settings) as ready,
        opened_databases(ready) as engines,
    ):
        _check(ready, opened, without_api_keys=without_api_keys)
        for engine in engines.values():
            ensure_database(engine.url)
        if not replacing:
            _require_empty(engines)
        with dagster_instance(ready) as instance:
            instance.upgrade()
        with (
            one_daemon(ready, "kpi db restore", say),
            plain_errors("The restore"),
            engines[KPI].connect() as kpi,
            engines[DAGSTER].connect() as dagster,
        ):
            _restore_kpi(kpi, opened, {_API_KEYS} if without_api_keys else set())
            if not without_dagster:
                _restore_dagster(dagster, opened)
            note_dump(dagster, last_dump_of(opened.manifest, file))
            kpi.commit()
            dagster.commit()
        return opened.manifest


def move_from_embedded(
    settings: Settings, say: Callable[[str], None], *, replacing: bool = False
) -> MadeDump:
    """Bring the embedded server's databases to the configured server.

    The embedded ones stay as they are, and the dump that was made for the move stays, too.

    Raises:
        KpiError: if there is no embedded server, or something uses it; and as `restore`.
    """
    state = settings.state_dir
    if settings.database_url is None:
        raise KpiError(
            "KPI_DATABASE_URL is not set. Set it to the server that the embedded database is to "
            "move to, and run this again."
        )
    if not (state / "postgres").is_dir():
        raise KpiError(f"There is no embedded database in {state}. Check KPI_STATE_DIR.")
    folder = state / "dumps"
    folder.mkdir(mode=0o700, exist_ok=True)
    with databases_to_upgrade(_embedded(settings)) as ready:
        _require_alone(ready)
        with dagster_instance(ready) as instance:
            instance.upgrade()
        with one_daemon(ready, "kpi db restore --from-embedded", say):
            made = dump(ready, folder / f"embedded-{utc_now():%Y-%m-%dT%H%M%SZ}.zip")
    restore(settings, made.file, say, replacing=replacing)
    return made


def _embedded(settings: Settings) -> Settings:
    """The settings with which the tables of the embedded server are found."""
    elsewhere = ("database_url", "dagster_database_url", "database_direct_url")
    same_schemas = settings.model_copy(update=dict.fromkeys(elsewhere))
    schemas = ("database_schema", "dagster_database_schema")
    # A schema may have been named for the new server alone.
    for found in (same_schemas, same_schemas.model_copy(update=dict.fromkeys(schemas))):
        with databases_as_they_are(found) as ready, opened_databases(ready) as engines:
            if is_reachable(engines[KPI].url):
                with engines[KPI].connect() as connection:
                    if revision_of(connection) is not None:
                        return found
    raise KpiError(f"The embedded database in {settings.state_dir} holds no tables.")


def _check(settings: Settings, opened: Dump, *, without_api_keys: bool) -> None:
    opened.verify()
    manifest = opened.manifest
    if manifest.databases[KPI].revision not in revisions().known:
        raise KpiError(
            f"{opened.file} was made by version {manifest.version}, which is newer than this one. "
            "Install that version, or a newer one."
        )
    if without_api_keys:
        return
    vault = existing_vault(settings.secret_key, settings.state_dir)
    lost = use_of_keys(_tokens(opened), vault).unreadable
    # Those that could not be decrypted before the dump are no loss of this restore.
    if lost > manifest.secret_keys.unreadable:
        raise _lost_key(manifest, vault, lost, key_file(settings.state_dir))


def _tokens(opened: Dump) -> list[bytes]:
    """The encrypted API keys in a dump."""
    table = opened.manifest.databases[KPI].tables[_API_KEYS]
    place = table.columns.index(client_api_keys.c.encrypted_key.name)
    fields = (line.rstrip(b"\n").split(b"\t")[place] for line in opened.lines(KPI, _API_KEYS))
    # COPY writes bytes as two backslashes, an x, and hexadecimal digits.
    return [bytes.fromhex(it.removeprefix(rb"\\x").decode()) for it in fields]


def _lost_key(manifest: Manifest, vault: Vault | None, lost: int, file: Path) -> KpiError:
    needed = " or ".join(manifest.secret_keys.readable)
    named = f" with the fingerprint {needed}" if needed else " that they were stored with"
    ours = "has none" if vault is None else f"has {' and '.join(vault.fingerprints)}"
    return KpiError(
        f"{counted(lost, 'API key')} in this dump can be decrypted with the secret key{named} "
        f"alone, and this installation {ours}. Set KPI_SECRET_KEY to it, or put the file {file} "
        "back. If it is lost, so are these API keys, and nothing else: numbers, events, targets "
        "and users are not encrypted. Then restore with --without-api-keys, and have `kpi keys "
        f"create-missing` make {lost} new ones with the master key, or import them with `kpi "
        "clients import`; delete the old ones in Email Bison's own pages."
    )


def _require_empty(engines: Mapping[str, Engine]) -> None:
    for name, engine in engines.items():
        with engine.connect() as connection:
            filled = [
                it.name
                for it in tables_of(name, connection)
                if (name == KPI or it.name in _USED_BY_DAGSTER) and it.has_rows(connection)
            ]
        if filled:
            raise KpiError(
                f"The database {for_people(engine.url)} holds rows already, in "
                f"{listed(sorted(filled), _SHOWN)}. Restore into an empty one, or add --replace, "
                "which deletes what both databases hold."
            )


def _restore_kpi(connection: Connection, opened: Dump, left_out: set[str]) -> None:
    prepare(connection)
    before = our_objects(connection)
    empty_all(connection, tables_of(KPI, connection))
    # A dump of an earlier version fits the tables of that version.
    move_to(connection, opened.manifest.databases[KPI].revision)
    _fill(connection, opened, KPI, left_out)
    move_to(connection, str(revisions().head))
    # A host may have granted rights on the new tables by default; and the readers of the dump may
    # read, where this server has such roles.
    close_to_others(connection, before)


def _restore_dagster(connection: Connection, opened: Dump) -> None:
    prepare(connection)
    if opened.manifest.databases[DAGSTER].revision != revision_of(connection):
        raise KpiError(
            f"The dump is of Dagster {opened.manifest.dagster_version}, whose tables are not those "
            f"of Dagster {version('dagster')}, which is installed. Install that version, restore, "
            "and upgrade then. Or add --without-dagster, and run `kpi dagster rebuild` afterwards: "
            "the grid is as it was, and the history of runs is lost."
        )
    _fill(connection, opened, DAGSTER, set())


def _fill(connection: Connection, opened: Dump, name: str, left_out: set[str]) -> None:
    """Fill the tables of a database from the dump, and compare them with it."""
    contents = opened.manifest.databases[name].tables
    tables = tables_of(name, connection)
    if unknown := sorted(set(contents) - {it.name for it in tables}):
        raise KpiError(
            f"The dump holds tables that the database lacks: {listed(unknown, _SHOWN)}. Restore "
            "with the version that made it."
        )
    # Migrations may have put rows into them.
    empty_all(connection, tables)
    for table in tables:
        if table.name not in contents:
            continue
        content = contents[table.name]
        if set(content.columns) != set(table.columns):
            raise KpiError(f"{table.name} has other columns in the dump than in the database.")
        # Migrations that went down and up again leave them in another order.
        table = replace(table, columns=tuple(content.columns))
        kept = table.name not in left_out
        table.write(connection, opened.lines(name, table.name) if kept else ())
        table.set_sequences(connection, content.sequences)
        if not content_of(table.read(connection)).is_that_of(content if kept else _NOTHING):
            raise KpiError(
                f"{table.name} reads back as other rows than those of the dump, so nothing was "
                "changed. Check whether the server has rules of its own for that table."
            )
        table.analyze(connection)


def _require_alone(settings: Settings) -> None:
    """Check that nothing else is connected to the embedded server."""
    with opened_databases(settings) as engines, engines[KPI].connect() as connection:
        others = connection.execute(_OTHERS).scalar_one()
    if others:
        raise KpiError(
            f"The embedded database is in use, by {counted(others, 'connection')} of other "
            "processes. Stop `kpi up` and whatever else works on it, and run this again."
        )
