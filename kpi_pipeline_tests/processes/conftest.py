from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from kpi_pipeline.app import open_app
from kpi_pipeline.db.vault import new_secret_key
from kpi_pipeline.instances import format_instances
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.agency import Agency, open_agency
from kpi_pipeline_tests.bison_sandbox.running import Bison
from kpi_pipeline_tests.cli.running import address
from kpi_pipeline_tests.conftest import NOW, instance_of


@pytest.fixture
def agency(database: URL, bison: Bison, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agency]:
    """The sandbox's clients, in an installation that every process finds in its environment."""
    monkeypatch.setenv("KPI_DATABASE_URL", address(database))
    monkeypatch.setenv("KPI_BISON_INSTANCES", format_instances([instance_of(bison)]))
    monkeypatch.setenv("KPI_BISON_CALLS_PER_SECOND", "0")
    monkeypatch.setenv("KPI_BISON_TIMEZONE", "America/Chicago")
    monkeypatch.setenv("KPI_SECRET_KEY", new_secret_key())
    with open_app(load_settings(), lambda: NOW) as app:
        yield open_agency(app, bison)
