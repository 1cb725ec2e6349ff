from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from kpi_pipeline.app import open_app
from kpi_pipeline.domain.calendar import first_of_month
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.agency import open_agency, variables_of
from kpi_pipeline_tests.bison_sandbox.running import Bison, Stage, bison_on, options
from kpi_pipeline_tests.cli.running import Kpi, address, calm_zone


@pytest.fixture
def kpi(capsys: pytest.CaptureFixture[str]) -> Kpi:
    """The command; neither a database nor an Email Bison is configured."""
    return Kpi(capsys)


@pytest.fixture
def configured(database: URL, dagster_database: URL, monkeypatch: pytest.MonkeyPatch) -> URL:
    """KPI_DATABASE_URL names a server on which both databases are up to date and empty."""
    monkeypatch.setenv("KPI_DATABASE_URL", address(database))
    monkeypatch.setenv("KPI_TIMEZONE", calm_zone().key)
    return database


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
def imported(live_bison: Bison) -> None:
    """All 26 clients are imported; Dagster's grid, which commands update, has none yet."""
    with open_app(load_settings()) as app:
        open_agency(app, live_bison, first_of_month(app.today()))
