"""Drills: a dump, the loss of everything, and the return, with the commands of an operator."""

import errno
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr
from sqlalchemy import URL, Engine, insert, text

from kpi_pipeline.app import open_app
from kpi_pipeline.db.backup import tables
from kpi_pipeline.db.backup.archive import DumpWriter
from kpi_pipeline.db.backup.record import last_dump
from kpi_pipeline.db.migrate import move_to, require_current, revisions
from kpi_pipeline.db.registry.api_keys import stored_keys
from kpi_pipeline.db.registry.vault import Vault, fingerprint, new_secret_key
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.db.tables import metadata, readers, webhook_events
from kpi_pipeline.services.dagster_home import dagster_instance
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.services.running_dagster import one_daemon
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.agency import ASSETS
from kpi_pipeline_tests.cli.running import PASSWORD, Kpi, address, days_ago, rows_of
from kpi_pipeline_tests.databases import administer
from kpi_pipeline_tests.db.stocked import (
    api_key,
    imported,
    record,
    stock_facts,
    stock_metrics,
)
from kpi_pipeline_tests.installed_postgres import installed_postgres
from kpi_pipeline_tests.pgbouncer import pooling

pytestmark = pytest.mark.server

# What COPY has to escape, and what reads differently under other settings of a server.
ODD = 'Tab\t, line\n, backslash \\N \\x41, quote " and é 🦊'
BODY = bytes(range(256))


@pytest.fixture
def secret_key(monkeypatch: pytest.MonkeyPatch) -> str:
    made = new_secret_key()
    monkeypatch.setenv("KPI_SECRET_KEY", made)
    return made


@pytest.fixture
def stocked(configured: URL, engine: Engine, secret_key: str) -> Engine:
    """Two clients with API keys of their own × three dates, and an event."""
    vault = Vault(SecretStr(secret_key))
    imported(
        engine,
        vault,
        record(101, "Acme", api_key=api_key(1)),
        record(102, "Birch", display_name=ODD, api_key=api_key(2)),
    )
    for workspace in ("acme", "birch"):
        for days in range(3):
            stock_metrics(engine, workspace, days_ago(days), emails_sent_mtd=days)
        with engine.begin() as connection:
            stock_facts(connection, workspace, days_ago(2), days_ago(0))
    with engine.begin() as connection:
        connection.execute(insert(webhook_events), _event("one"))
    return engine


def _event(name: str) -> dict[str, Any]:
    return {
        "instance": "main",
        "source": "webhook",
        "arrived_at": datetime(2026, 3, 29, 1, 30, 0, 123456, UTC),
        "body": BODY,
        "idempotency_key": name,
        "status": "ignored",
        "reason": ODD,
    }


@pytest.fixture
def elsewhere(postgres: URL) -> Iterator[URL]:
    """The address of another database for a role that is no superuser; nothing is made yet.

    A role of the same name and `_reader` has no rights.
    """
    name = f"kpi_{uuid.uuid4().hex}"
    administer(postgres, f"CREATE ROLE {name} LOGIN CREATEDB")
    administer(postgres, f"CREATE ROLE {name}_reader")
    yield postgres.set(database=name, username=name)
    for it in (name, f"{name}_dagster"):
        administer(postgres, f"DROP DATABASE IF EXISTS {it} WITH (FORCE)")
    administer(postgres, f"DROP ROLE {name}, {name}_reader")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "dump.zip"


def contents(engine: Engine) -> dict[str, Any]:
    """Every row of every KPI table."""
    return rows_of(engine, *metadata.sorted_tables)


def grid() -> list[set[str]]:
    """The green partitions of each asset, as the settings of the environment find them."""
    with ready_databases(load_settings()) as settings, dagster_instance(settings) as instance:
        return [set(instance.get_materialized_partitions(dg.AssetKey(it))) for it in ASSETS]


def test_after_the_loss_of_everything_rows_statuses_and_keys_are_as_they_were(
    kpi: Kpi,
    stocked: Engine,
    elsewhere: URL,
    secret_key: str,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kpi("dagster", "rebuild").answer()
    reader = f"{elsewhere.username}_reader"
    with stocked.begin() as connection:
        connection.execute(insert(readers).values(role=reader, granted_at=text("now()")))
    rows, shown = contents(stocked), grid()
    assert [len(it) for it in shown] == [6, 6, 6]

    made = kpi("db", "dump", str(file)).answer()

    assert "rows of both databases are in" in made
    assert (
        f"2 API keys in it can only be decrypted with the secret key {fingerprint(secret_key)},"
        in made
    )
    assert file.stat().st_mode & 0o777 == 0o600
    assert secret_key not in made

    # Another machine, another server, another role; the secret key was kept elsewhere.
    monkeypatch.setenv("KPI_STATE_DIR", str(file.parent / "another"))
    monkeypatch.setenv("KPI_DATABASE_URL", address(elsewhere))
    assert "rows of both databases are restored" in kpi("db", "restore", str(file)).answer()

    engine = open_engine(elsewhere)
    try:
        assert contents(engine) == rows
        assert grid() == shown
        with engine.connect() as connection:
            keys = stored_keys(connection, ["acme", "birch"], Vault(SecretStr(secret_key)))
        assert [it.secret for it in keys.values()] == [api_key(1), api_key(2)]
        with engine.connect() as connection:
            rights = "SELECT has_table_privilege(:role, :table, 'SELECT')"
            assert [
                connection.scalar(text(rights), {"role": reader, "table": table})
                for table in ("client_metrics", "client_api_keys")
            ] == [True, False]
        of_databases = (
            "database",
            "tables",
            "rights",
            "exposure",
            "dates",
            "stored-keys",
            "dagster",
        )
        answer = kpi("doctor", *of_databases, "backups", "--json")
        verdicts = {it["check"]: it["verdict"] for it in json.loads(answer.out)["findings"]}
        assert verdicts == dict.fromkeys([*of_databases, "backups"], "ok"), answer.out
        # What is written from now on has numbers of its own, and is noted as before.
        with engine.begin() as connection:
            connection.execute(insert(webhook_events), _event("two"))
        stock_metrics(engine, "acme", days_ago(9), source="import")
        after = contents(engine)
        assert len({it["id"] for it in after["webhook_events"]}) == 2
        assert len(after["changed_rows"]) == len(rows["changed_rows"]) + 1
    finally:
        engine.dispose()


def test_a_dump_of_an_earlier_version_is_restored_and_upgraded(
    kpi: Kpi, stocked: Engine, file: Path
) -> None:
    with stocked.begin() as connection:
        move_to(connection, "0017")
    assert "rows of both databases" in kpi("db", "dump", str(file)).answer()
    with stocked.begin() as connection:
        move_to(connection, str(revisions().head))
    rows = contents(stocked)
    with stocked.begin() as connection:
        connection.execute(text("UPDATE clients SET name = 'Another', min_reply_rate = 2"))

    error = kpi("db", "restore", str(file)).error()
    assert "holds rows already, in " in error
    assert "or add --replace" in error

    kpi("db", "restore", str(file), "--replace").answer()
    after = contents(stocked)
    # A migration writes it, with the time.
    assert after.pop("alert_evaluations") != rows.pop("alert_evaluations")
    assert after == rows
    require_current(stocked)


def test_a_lost_secret_key_is_said_with_what_it_costs_and_costs_no_more(
    kpi: Kpi, stocked: Engine, secret_key: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kpi("db", "dump", str(file)).answer()
    rows = contents(stocked)
    other = new_secret_key()
    monkeypatch.setenv("KPI_SECRET_KEY", other)

    for words in (("--check",), ("--replace",)):
        error = kpi("db", "restore", str(file), *words).error()
        assert error.startswith(
            "2 API keys in this dump can be decrypted with the secret key with the fingerprint "
            f"{fingerprint(secret_key)} alone, and this installation has {fingerprint(other)}. "
            "Set KPI_SECRET_KEY to it, "
        )
        assert "numbers, events, targets and users are not encrypted" in error
        assert "have `kpi keys create-missing` make 2 new ones" in error
        assert contents(stocked) == rows

    # On a new machine no secret key is generated, which would hide that the old one is missing.
    monkeypatch.delenv("KPI_SECRET_KEY")
    assert "and this installation has none." in kpi("db", "restore", str(file), "--check").error()
    assert not (load_settings().state_dir / "secret.key").exists()

    done = kpi("db", "restore", str(file), "--replace", "--without-api-keys")
    assert done.code == 0
    assert "2 API keys left out" in done.err
    assert contents(stocked) == {**rows, "client_api_keys": []}


def test_api_keys_that_were_lost_before_the_dump_keep_nobody_from_restoring_it(
    kpi: Kpi, stocked: Engine, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_SECRET_KEY", new_secret_key())
    made = kpi("db", "dump", str(file))
    assert "2 API keys in it can't be decrypted with the secret key of this machine" in made.err
    assert kpi("db", "restore", str(file), "--check").answer().startswith(f"{file} is whole: ")


def test_a_damaged_dump_and_another_file_change_nothing(
    kpi: Kpi, stocked: Engine, file: Path
) -> None:
    kpi("db", "dump", str(file)).answer()
    rows, whole = contents(stocked), file.read_bytes()
    for damaged in (
        whole[: len(whole) // 2],
        whole[:-30],
        whole.replace(b"manifest", b"manifesT"),
        b"",
    ):
        file.write_bytes(damaged)
        assert (
            kpi("db", "restore", str(file), "--replace")
            .error()
            .startswith(f"{file} is no whole dump: it was cut off, changed, or is another file.")
        )
    assert contents(stocked) == rows
    # It is not taken for an old dump either, which a new one replaces.
    assert "is another file than a dump, and is kept" in kpi("db", "dump", str(file)).error()
    assert file.read_bytes() == b""


def test_a_restore_beside_a_running_daemon_is_refused_and_the_daemon_named(
    kpi: Kpi, stocked: Engine, file: Path
) -> None:
    kpi("db", "dump", str(file)).answer()
    rows = contents(stocked)
    with ready_databases(load_settings()) as settings, one_daemon(settings, "kpi up", print):
        error = kpi("db", "restore", str(file), "--replace").err
    assert f"Dagster already works on this database: `kpi up`, process {os.getpid()}" in error
    assert contents(stocked) == rows


def test_a_dump_is_of_one_instant_though_others_write(
    kpi: Kpi, stocked: Engine, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = contents(stocked)
    write = DumpWriter.write

    def written_meanwhile(self: DumpWriter, database: str, table: str, lines: Any) -> Any:
        with stocked.begin() as connection:
            connection.execute(insert(webhook_events), _event(f"{database} {table}"))
        return write(self, database, table, lines)

    with monkeypatch.context() as patch:
        patch.setattr(DumpWriter, "write", written_meanwhile)
        kpi("db", "dump", str(file)).answer()

    assert len(contents(stocked)["webhook_events"]) > 20
    kpi("db", "restore", str(file), "--replace", "--without-dagster").answer()
    assert contents(stocked) == rows


def test_a_table_that_somebody_locks_is_waited_for_and_then_said(
    kpi: Kpi, stocked: Engine, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "LOCK_SECONDS", 1)
    with stocked.begin() as connection:
        connection.execute(text("LOCK TABLE clients"))
        error = kpi("db", "dump", str(file)).error()
    assert error.startswith("The dump waited 1 s for a table that another program has locked")
    assert not file.exists()


def test_a_folder_gets_dumps_with_their_times_and_keeps_the_newest(
    kpi: Kpi, stocked: Engine, dagster_database: URL, tmp_path: Path
) -> None:
    folder = tmp_path / "dumps"
    folder.mkdir()
    for name in ("kpi-2026-03-16T010000Z.zip", "kpi-2026-03-17T010000Z.zip", "kpi-clients.zip"):
        (folder / name).write_text("another one")

    made = kpi("db", "dump", str(folder), "--keep", "2").answer()

    assert made.endswith("1 older dump deleted.\n")
    first, second, third = sorted(it.name for it in folder.iterdir())
    assert (first, third) == ("kpi-2026-03-17T010000Z.zip", "kpi-clients.zip")
    engine = open_engine(dagster_database)
    with engine.connect() as connection:
        noted = last_dump(connection)
    engine.dispose()
    assert noted is not None
    assert noted.file == str(folder / second)
    assert noted.size == (folder / second).stat().st_size
    assert f"{noted.made_at:%Y-%m-%dT%H}" in second


def test_a_disk_that_is_full_leaves_the_earlier_dump(
    kpi: Kpi, stocked: Engine, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kpi("db", "dump", str(file)).answer()
    before = file.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    error = kpi("db", "dump", str(file)).error()
    assert error.startswith(f"The dump {file} can't be written: No space left on device.")
    assert [file.read_bytes(), *file.parent.glob("*.partial")] == [before]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("dump {file} --keep 3", "--keep needs a folder, and {file} is none."),
        ("dump /nowhere/dump.zip", "The dump /nowhere/dump.zip can't be written: No such file or"),
        ("restore", "Name the FILE of a dump, or add --from-embedded."),
        ("restore {file}", "The dump {file} can't be read: No such file or directory."),
        ("restore --from-embedded {file}", "--from-embedded takes all of the embedded database,"),
        ("restore --from-embedded", "There is no embedded database in "),
    ],
)
def test_what_can_not_be_done_is_one_sentence(
    kpi: Kpi, configured: URL, file: Path, words: str, message: str
) -> None:
    error = kpi("db", *words.format(file=file).split()).error()
    assert error.startswith(message.format(file=file))


@pytest.fixture
def embedded(secret_key: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The state folder of an installation without a server of its own, which has two clients.

    It is outside pytest's own folder, which other users may not enter: the embedded server of a
    root user runs as another one.
    """
    folder = Path(tempfile.mkdtemp(prefix="kpi-cli-"))
    monkeypatch.setenv("KPI_STATE_DIR", str(folder))
    with ready_databases(load_settings(), dagster_too=False) as settings, open_app(settings) as app:
        own = [record(101, "Acme", api_key=api_key(1)), record(102, "Birch", display_name=ODD)]
        imported(app.engine, app.vault, *own)
        stock_metrics(app.engine, "acme", days_ago(1), emails_sent_mtd=7)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.long
def test_the_embedded_database_moves_to_an_older_server_behind_a_pooler_in_one_command(
    kpi: Kpi, embedded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kpi("dagster", "rebuild").answer()
    with ready_databases(load_settings()) as settings, open_app(settings) as app:
        rows, shown = contents(app.engine), grid()
        with installed_postgres() as server, pooling(server, auth_type="scram-sha-256") as pooler:
            # As hosts give it: one database, and a role that may make none.
            administer(server, f"CREATE ROLE plain LOGIN PASSWORD '{PASSWORD}'")
            administer(server, "CREATE DATABASE kpi OWNER plain")
            direct = server.set(username="plain", database="kpi")
            for name, value in {
                "KPI_DATABASE_URL": address(pooler.url("kpi", "plain")),
                "KPI_DATABASE_DIRECT_URL": address(direct),
                "KPI_DATABASE_SCHEMA": "numbers",
                "KPI_DAGSTER_DATABASE_SCHEMA": "dagster",
            }.items():
                monkeypatch.setenv(name, value)
            with app.engine.connect() as connection:
                connection.execute(text("SELECT 1"))
                error = kpi("db", "restore", "--from-embedded").error()
            assert error.startswith("The embedded database is in use, by 1 connection of other pr")
            app.engine.dispose()

            done = kpi("db", "restore", "--from-embedded").answer()

            assert "are in the databases of the settings" in done
            with ready_databases(load_settings()) as moved, open_app(moved) as there:
                assert contents(there.engine) == rows
                assert grid() == shown != [set()] * 3
            assert [it.stat().st_mode & 0o777 for it in (embedded / "dumps").iterdir()] == [0o600]
            # The embedded one is as it was.
            assert contents(app.engine) == rows
