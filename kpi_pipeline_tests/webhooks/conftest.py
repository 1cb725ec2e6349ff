"""An agency whose sandbox stands still at the real time, and whose pipeline runs in real time."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import URL

from kpi_pipeline_tests.agency import Agency, agency_on
from kpi_pipeline_tests.bison_sandbox.running import Bison, Stage, bison_on, options
from kpi_pipeline_tests.cli.running import calm_zone


@pytest.fixture
def bison(stage: Stage) -> Iterator[Bison]:
    """A sandbox that stands still at this moment, far from any midnight."""
    zone = calm_zone()
    with bison_on(stage, options(today=None, timezone=zone.key)) as fresh:
        fresh.freeze(datetime.now(UTC).isoformat())
        yield fresh


@pytest.fixture
def agency(database: URL, bison: Bison, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agency]:
    """The agency on the tests' own server."""
    with agency_on(database, bison, monkeypatch) as agency:
        yield agency
