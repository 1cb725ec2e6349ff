from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import URL

from kpi_pipeline.services.dagster_home import dagster_instance
from kpi_pipeline.services.database import databases_to_upgrade
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.agency import variables_of
from kpi_pipeline_tests.bison_sandbox.running import Bison, Stage, bison_on, options
from kpi_pipeline_tests.cli.running import Kpi, address, calm_zone
from kpi_pipeline_tests.databases import KeptDatabase


@pytest.fixture
def kpi(capsys: pytest.CaptureFixture[str]) -> Kpi:
    """The command; neither a database nor an Email Bison is configured."""
    return Kpi(capsys)


@pytest.fixture(scope="session")
def _kept_dagster(
    postgres: URL,
    _kept_database: KeptDatabase,
    administer: Callable[[str], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[KeptDatabase]:
    """Dagster's database beside that of the tests. Its tables take a while to make."""
    name = f"{_kept_database.url.database}_dagster"
    template = postgres.set(database=f"{name}_template")
    settings = Settings(
        state_dir=tmp_path_factory.mktemp("dagster"),
        database_url=SecretStr(address(postgres)),
        dagster_database_url=SecretStr(address(template)),
    )
    with databases_to_upgrade(settings) as ready, dagster_instance(ready) as instance:
        instance.upgrade()
    # A database can be copied only while nobody is connected to it.
    administer(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE datname = '{template.database}'"
    )
    kept = KeptDatabase(postgres, name, str(template.database))
    yield kept
    kept.drop()


@pytest.fixture
def configured(
    database: URL, _kept_dagster: KeptDatabase, monkeypatch: pytest.MonkeyPatch
) -> Iterator[URL]:
    """KPI_DATABASE_URL names a server on which both databases are up to date and empty."""
    monkeypatch.setenv("KPI_DATABASE_URL", address(database))
    monkeypatch.setenv("KPI_TIMEZONE", calm_zone().key)
    yield database
    _kept_dagster.reset()


@pytest.fixture
def live_bison(configured: URL, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bison]:
    """A configured Email Bison of 26 clients; its clock is the real one, as a command's is."""
    with bison_on(stage, options(today=None, timezone=calm_zone().key)) as fresh:
        fresh.freeze(None)
        for name, value in variables_of(fresh, calm_zone()).items():
            monkeypatch.setenv(name, value)
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
