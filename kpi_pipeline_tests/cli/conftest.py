import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import URL

from kpi_pipeline.instances import format_instances
from kpi_pipeline.services.dagster_home import dagster_instance
from kpi_pipeline.services.database import databases_to_upgrade
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.bison_sandbox.running import Bison, Stage, bison_on, options
from kpi_pipeline_tests.cli.running import Kpi, address, calm_zone
from kpi_pipeline_tests.conftest import instance_of
from kpi_pipeline_tests.databases import KeptDatabase

# The processes of a run share the server.
_DAGSTER_TEMPLATE = f"kpi_dagster_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"


@pytest.fixture
def kpi(capsys: pytest.CaptureFixture[str]) -> Kpi:
    """The command; neither a database nor an Email Bison is configured."""
    return Kpi(capsys)


@pytest.fixture(scope="session")
def dagster_template(
    postgres: URL, administer: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The name of a database with Dagster's tables, which take a while to make."""
    settings = Settings(
        state_dir=tmp_path_factory.mktemp("dagster"),
        database_url=SecretStr(address(postgres)),
        dagster_database_url=SecretStr(address(postgres.set(database=_DAGSTER_TEMPLATE))),
    )
    with databases_to_upgrade(settings) as ready, dagster_instance(ready) as instance:
        instance.upgrade()
    # A database can be copied only while nobody is connected to it.
    administer(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE datname = '{_DAGSTER_TEMPLATE}'"
    )
    return _DAGSTER_TEMPLATE


@pytest.fixture(scope="session")
def _kept_dagster(postgres: URL, dagster_template: str) -> Iterator[Callable[[str], KeptDatabase]]:
    """Makes Dagster's database beside a test's, and keeps it for the next tests."""
    kept: dict[str, KeptDatabase] = {}

    def beside(name: str) -> KeptDatabase:
        if name not in kept:
            kept[name] = KeptDatabase(postgres, f"{name}_dagster", dagster_template)
        return kept[name]

    yield beside
    for database in kept.values():
        database.drop()


@pytest.fixture
def configured(
    database: URL,
    _kept_dagster: Callable[[str], KeptDatabase],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[URL]:
    """KPI_DATABASE_URL names a server on which both databases are up to date and empty."""
    beside = _kept_dagster(str(database.database))
    monkeypatch.setenv("KPI_DATABASE_URL", address(database))
    monkeypatch.setenv("KPI_TIMEZONE", calm_zone().key)
    yield database
    beside.reset()


@pytest.fixture
def live_bison(configured: URL, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bison]:
    """A configured Email Bison of 26 clients; its clock is the real one, as a command's is."""
    with bison_on(stage, options(today=None, timezone=calm_zone().key)) as fresh:
        fresh.freeze(None)
        monkeypatch.setenv("KPI_BISON_INSTANCES", format_instances([instance_of(fresh)]))
        monkeypatch.setenv("KPI_BISON_TIMEZONE", calm_zone().key)
        monkeypatch.setenv("KPI_BISON_CALLS_PER_SECOND", "0")
        monkeypatch.setenv("KPI_BISON_ATTEMPTS", "1")
        yield fresh


@pytest.fixture
def clients_csv(live_bison: Bison, tmp_path: Path) -> Path:
    """The file of the 26 clients, as the agency keeps it."""
    file = tmp_path / "clients.csv"
    file.write_text(live_bison.http.get("/sandbox/clients.csv").text, encoding="utf-8")
    return file


@pytest.fixture
def imported(kpi: Kpi, clients_csv: Path) -> None:
    """All 26 clients are imported."""
    kpi("clients", "import", str(clients_csv)).answer()
