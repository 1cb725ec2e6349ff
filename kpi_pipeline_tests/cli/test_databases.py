import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from psycopg.errors import DiskFull, UniqueViolation
from pydantic import SecretStr
from sqlalchemy import URL
from sqlalchemy.exc import OperationalError

from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.db.tables import clients
from kpi_pipeline.services.database import storage_error
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.cli.running import (
    PASSWORD,
    Kpi,
    address,
    closed_port,
    ended,
    kpi_in_a_process,
    rows_of,
    written,
)
from kpi_pipeline_tests.databases import another_database


@pytest.fixture
def new_name(postgres: URL, administer: Callable[[str], None]) -> Iterator[URL]:
    """A database that the server does not have, nor the one for Dagster beside it."""
    url = postgres.set(database=f"kpi_{uuid.uuid4().hex}")
    yield url
    for name in (url.database, f"{url.database}_dagster"):
        administer(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder outside pytest's own, which each session of pytest closes to other users.

    The embedded server of a root user runs as another one.
    """
    folder = Path(tempfile.mkdtemp(prefix="kpi-cli-"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"mysql://kpi:{PASSWORD}@127.0.0.1/kpi", "names 'mysql', but the pipeline needs Postgre"),
        (f"kpi:{PASSWORD}@127.0.0.1/kpi", "KPI_DATABASE_URL"),
        (PASSWORD, "is no database address"),
        (f"postgresql://kpi:{PASSWORD}@127.0.0.1:port/kpi", "is no database address"),
        (f"postgresql://kpi:{PASSWORD}@127.0.0.1:5432", "names no database"),
        (f"postgresql://kpi:{PASSWORD}@{PASSWORD}@127.0.0.1/kpi", "holds one @ too many"),
    ],
)
@pytest.mark.parametrize("command", ["metrics", "db upgrade"])
def test_an_address_that_is_not_postgresqls_is_rejected_without_its_password(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch, command: str, text: str, message: str
) -> None:
    monkeypatch.setenv("KPI_DATABASE_URL", text)
    error = kpi(*command.split()).error()
    assert error.startswith("KPI_DATABASE_URL ")
    assert message in error
    assert PASSWORD not in error


@pytest.mark.parametrize("command", ["clients list", "sync", "metrics", "db upgrade"])
def test_a_server_that_does_not_answer_is_named_without_its_password(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    port = closed_port()
    monkeypatch.setenv("KPI_DATABASE_URL", f"postgresql://kpi:{PASSWORD}@127.0.0.1:{port}/kpi")
    error = kpi(*command.split()).error()
    assert f"The database postgresql://kpi:***@127.0.0.1:{port}/kpi cannot be " in error
    assert "Connection refused" in error
    assert PASSWORD not in error


def test_a_host_that_does_not_exist_is_named_without_the_password(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_DATABASE_URL", f"postgresql://kpi:{PASSWORD}@nowhere.invalid/kpi")
    error = kpi("clients", "list").error()
    assert "'nowhere.invalid'" in error
    assert "Check KPI_DATABASE_URL" in error
    assert PASSWORD not in error


def test_a_database_that_the_server_does_not_have_is_named(
    kpi: Kpi, new_name: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_DATABASE_URL", address(new_name))
    error = kpi("clients", "list").error()
    assert f'database "{new_name.database}" does not exist' in error
    assert "Check KPI_DATABASE_URL" in error
    assert PASSWORD not in error


def test_a_database_that_is_behind_is_refused_and_left_alone(
    kpi: Kpi,
    new_name: URL,
    administer: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    administer(f"CREATE DATABASE {new_name.database}")
    monkeypatch.setenv("KPI_DATABASE_URL", address(new_name))
    monkeypatch.setenv("KPI_BISON_INSTANCES", "main http://127.0.0.1:9")
    monkeypatch.setenv("KPI_WEB_PORT", "0")
    for command in ("clients list", "metrics", "sync", "up"):
        error = kpi(*command.split()).error()
        assert error.startswith("The KPI database is behind this version of the code")
        assert error.endswith("Run `kpi db upgrade`.")
    engine = open_engine(new_name)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT to_regclass('clients')").scalar() is None
    engine.dispose()


@pytest.mark.server
def test_an_upgrade_makes_both_databases_and_then_commands_work(
    kpi: Kpi, new_name: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_DATABASE_URL", address(new_name))
    monkeypatch.setenv("KPI_BISON_INSTANCES", "main http://127.0.0.1:9")
    assert kpi("db", "upgrade").answer() == "Both databases are at this version.\n"
    assert kpi("db", "upgrade").answer() == "Both databases are at this version.\n"
    assert "Active: 0 of 0 clients." in kpi("clients", "list").answer()
    file = written(tmp_path / "c.csv", "instance,bison_workspace_id,name", "main,101,Heron Tide")
    # Dagster's tables are there as well: its grid takes the client.
    assert "1 client imported" in kpi("clients", "import", file).answer()
    engine = open_engine(new_name.set(database=f"{new_name.database}_dagster"))
    with engine.connect() as connection:
        grid = connection.exec_driver_sql("SELECT partition FROM dynamic_partitions").scalars()
        assert grid.all() == ["heron-tide"]
    engine.dispose()


@pytest.fixture
def without_dagster(postgres: URL) -> Iterator[URL]:
    """A database of a new name: that of other tests may have one of Dagster's beside it."""
    with another_database(postgres) as url:
        yield url


def test_a_missing_database_of_dagster_is_named_and_nothing_is_imported(
    kpi: Kpi, without_dagster: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = without_dagster
    monkeypatch.setenv("KPI_DATABASE_URL", address(database))
    monkeypatch.setenv("KPI_BISON_INSTANCES", "main http://127.0.0.1:9")
    file = written(tmp_path / "c.csv", "instance,bison_workspace_id,name", "main,101,Heron Tide")
    error = kpi("clients", "import", file).error()
    assert f'database "{database.database}_dagster" does not exist' in error
    assert "KPI_DAGSTER_DATABASE_URL" in error
    assert "`kpi db upgrade`" in error
    assert PASSWORD not in error
    engine = open_engine(database)
    assert rows_of(engine, clients) == {"clients": []}
    engine.dispose()
    # What only reads the KPI tables works all the same.
    kpi("clients", "list").answer()
    kpi("metrics").answer()


@pytest.mark.parametrize(
    "command", ["clients import", "sync", "secret-key rotate", "bison measure", "up", "demo --once"]
)
def test_a_state_folder_that_cannot_be_made_is_one_sentence_whatever_needs_it_first(
    kpi: Kpi,
    database: URL,
    dagster_database: URL,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    file = written(tmp_path / "c.csv", "instance,bison_workspace_id,name,api_key", "main,1,Heron,k")
    monkeypatch.setenv("KPI_STATE_DIR", f"{file}/state")
    monkeypatch.setenv("KPI_DATABASE_URL", address(database))
    monkeypatch.setenv("KPI_BISON_INSTANCES", "main http://127.0.0.1:9")
    monkeypatch.setenv("KPI_WEB_PORT", "0")
    ended = kpi(*command.split(), *([str(file)] if command == "clients import" else []))
    assert (ended.code, "Traceback" in ended.err) == (1, False)
    assert f"Error: The state folder {file}/state" in ended.err
    assert "cannot be made: a file is in its place. Move the file away, or set" in ended.err


def test_a_database_that_takes_no_writes_is_one_sentence(
    kpi: Kpi,
    database: URL,
    administer: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KPI_DATABASE_URL", address(database))
    administer(f"ALTER DATABASE {database.database} SET default_transaction_read_only = on")
    try:
        error = kpi("users", "add", "ana", "--role", "viewer", "--no-password").error()
    finally:
        administer(f"ALTER DATABASE {database.database} RESET default_transaction_read_only")
    assert error.startswith("The database is read-only at the moment")
    assert PASSWORD not in error


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (None, "The disk of the state folder /var/lib/kpi is full. Free some space, or set"),
        ("postgresql://kpi@db.agency.example/kpi", "The disk of the database is full: the server"),
    ],
)
def test_a_full_disk_of_the_database_is_one_sentence_that_says_whose(
    address: SecretStr | None, message: str
) -> None:
    error = OperationalError("INSERT", {}, DiskFull("could not extend file: No space left"))
    settings = Settings(state_dir=Path("/var/lib/kpi"), database_url=address)
    assert str(storage_error(error, settings)).startswith(message)
    other = OperationalError("INSERT", {}, UniqueViolation("a row is there already"))
    assert storage_error(other, settings) is None


@pytest.mark.server
def test_an_error_of_a_real_process_is_one_sentence_and_code_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"postgresql://kpi:{PASSWORD}@127.0.0.1:{closed_port()}/kpi"
    monkeypatch.setenv("KPI_DATABASE_URL", url)
    with kpi_in_a_process("metrics") as process:
        error = ended(process).error()
    assert len(error.splitlines()) == 1
    assert PASSWORD not in error


@pytest.mark.server
@pytest.mark.long
def test_without_a_configured_database_one_is_started_and_kept_in_the_state_folder(
    kpi: Kpi, open_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = open_folder / "state"
    monkeypatch.setenv("KPI_STATE_DIR", str(state))
    monkeypatch.setenv("KPI_BISON_INSTANCES", "main http://127.0.0.1:9")
    file = written(tmp_path / "c.csv", "instance,bison_workspace_id,name", "main,101,Heron Tide")
    with kpi_in_a_process("clients", "import", file) as process:
        assert ended(process).answer().startswith("1 client imported")
    _server_is_stopped(state)
    assert "Heron Tide" in kpi("metrics").answer()
    _server_is_stopped(state)


def _server_is_stopped(state: Path) -> None:
    data = state / "postgres"
    log = (data / "log").read_text().splitlines()[-5:]
    assert not (data / "postmaster.pid").exists(), log
