"""Upgrades beside those who use the tables, and by a role that may not do everything."""

import logging
import threading
import uuid
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import URL, Engine, create_engine, text

from kpi_pipeline.db.migrate import require_current, upgrade
from kpi_pipeline.db.server import holders
from kpi_pipeline.db.server.engine import ensure_database, open_engine
from kpi_pipeline.db.server.urls import with_schema
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.database import upgrade_databases
from kpi_pipeline_tests.databases import another_database

Administer = Callable[[str], None]


@pytest.fixture
def role(administer: Administer) -> Iterator[str]:
    name = f"plain_{uuid.uuid4().hex[:12]}"
    administer(f"CREATE ROLE {name} LOGIN")
    yield name
    administer(f"DROP ROLE {name}")


@pytest.fixture
def empty(postgres: URL, administer: Administer, role: str) -> Iterator[URL]:
    """An empty database, in which the role may not even make a schema."""
    name = f"kpi_{role}"
    administer(f"CREATE DATABASE {name} TEMPLATE template0")
    yield postgres.set(database=name, username=role)
    administer(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holders, "LOCK_SECONDS", 0.05)
    monkeypatch.setattr(holders, "PAUSE_SECONDS", 0.05)


@pytest.fixture
def behind(postgres: URL) -> Iterator[Engine]:
    """The tables, of which the last migration seems to be missing: it changes `clients`."""
    with another_database(postgres) as url:
        engine = open_engine(url)
        yield engine
        engine.dispose()


@pytest.fixture
def reader(behind: Engine) -> Iterator[Engine]:
    """A dashboard that reads the clients, and leaves its transaction open."""
    engine = create_engine(behind.url, connect_args={"application_name": "an old dashboard"})
    yield engine
    engine.dispose()


def _change_clients(engine: Engine) -> None:
    def work(connection: object) -> None:
        assert hasattr(connection, "execute")
        connection.execute(text("ALTER TABLE clients ADD COLUMN IF NOT EXISTS tried int"))

    holders.alter_tables(engine, work)


def test_who_holds_an_upgrade_up_is_named_and_nothing_waits_for_ever(
    behind: Engine, reader: Engine, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holders, "GIVE_UP_SECONDS", 0.5)
    with reader.connect() as reading:
        reading.execute(text("SELECT count(*) FROM clients"))
        pid = reading.scalar(text("SELECT pg_backend_pid()"))
        with pytest.raises(KpiError) as error:
            _change_clients(behind)
        said = str(error.value)
        assert f"an old dashboard (role postgres, process {pid}, idle in transaction, for " in said
        assert "Nothing was changed." in said
        # Meanwhile others could read.
        assert reading.scalar(text("SELECT count(*) FROM clients")) == 0


def test_an_upgrade_goes_on_when_the_reader_has_ended(
    behind: Engine, reader: Engine, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    said = threading.Event()
    monitored = caplog.handler.emit

    def emit(record: logging.LogRecord) -> None:
        monitored(record)
        said.set()

    caplog.handler.emit = emit  # type: ignore[method-assign]
    upgrading = threading.Thread(target=_change_clients, args=(behind,))
    with reader.connect() as reading:
        reading.execute(text("SELECT count(*) FROM clients"))
        upgrading.start()
        assert said.wait(60)
    upgrading.join(60)
    assert not upgrading.is_alive()
    assert "Waiting for others who use the tables: an old dashboard (role" in caplog.text
    with behind.connect() as connection:
        connection.execute(text("SELECT tried FROM clients"))


def test_two_upgrades_at_once_make_the_tables_once(
    empty: URL, administer: Administer, role: str
) -> None:
    administer(f"GRANT CREATE ON DATABASE {empty.database} TO {role}")
    url = with_schema(empty, "kpi")
    ensure_database(url)
    engine = open_engine(url)
    threads = [threading.Thread(target=upgrade, args=(engine,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    require_current(engine)
    engine.dispose()


def test_a_role_without_a_right_is_told_which_and_what_to_do(empty: URL, role: str) -> None:
    engine = open_engine(empty)
    with pytest.raises(KpiError) as error:
        upgrade(engine)
    engine.dispose()
    said = str(error.value)
    assert f"The user {role} may not make or change the tables in the schema public of" in said
    assert f"GRANT CREATE, USAGE ON SCHEMA public TO {role};" in said
    assert "KPI_DATABASE_SCHEMA" in said
    with pytest.raises(KpiError, match=f"CREATE SCHEMA kpi AUTHORIZATION {role};"):
        ensure_database(with_schema(empty, "kpi"))


def test_one_database_takes_both_halves_in_two_schemas(
    empty: URL, administer: Administer, role: str
) -> None:
    administer(f"GRANT CREATE ON DATABASE {empty.database} TO {role}")
    ours, dagsters = with_schema(empty, "kpi"), with_schema(empty, "dagster")
    upgrade_databases(ours, dagsters)
    with pytest.raises(KpiError, match="Set KPI_DAGSTER_DATABASE_SCHEMA=dagster"):
        upgrade_databases(ours, ours)
    # A second database is more than this role may make.
    beside = empty.set(database=f"{empty.database}_dagster")
    with pytest.raises(KpiError, match=r"permission denied.*KPI_DAGSTER_DATABASE_SCHEMA=dagster"):
        upgrade_databases(ours, beside)
