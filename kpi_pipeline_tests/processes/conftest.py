from collections.abc import Iterator
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import URL

from kpi_pipeline_tests.agency import Agency, agency_on
from kpi_pipeline_tests.bison_sandbox.running import Bison
from kpi_pipeline_tests.conftest import NOW


@pytest.fixture
def agency(database: URL, bison: Bison, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agency]:
    """The sandbox's clients at NOW, in an installation that every process finds."""
    zone = ZoneInfo("America/Chicago")
    with agency_on(database, bison, monkeypatch, zone, lambda: NOW) as agency:
        yield agency
