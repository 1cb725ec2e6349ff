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

_DAGSTER_TEMPLATE = "kpi_cli_dagster_template"


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


@pytest.fixture
def configured(
    database: URL,
    dagster_template: str,
    administer: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[URL]:
    """KPI_DATABASE_URL names a server on which both databases are up to date and empty."""
    administer(f"CREATE DATABASE {database.database}_dagster TEMPLATE {dagster_template}")
    monkeypatch.setenv("KPI_DATABASE_URL", address(database))
    monkeypatch.setenv("KPI_TIMEZONE", calm_zone().key)
    yield database
    administer(f"DROP DATABASE {database.database}_dagster WITH (FORCE)")


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
