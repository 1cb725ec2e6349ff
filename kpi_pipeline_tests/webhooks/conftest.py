"""An agency whose sandbox stands still at the real time, and whose pipeline runs in real time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import URL

from kpi_pipeline.app import open_app
from kpi_pipeline.db.vault import new_secret_key
from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.instances import format_instances
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.agency import Agency, open_agency
from kpi_pipeline_tests.bison_sandbox.running import Bison, Stage, bison_on, options
from kpi_pipeline_tests.cli.running import address, calm_zone
from kpi_pipeline_tests.conftest import instance_of

OpenAgency = Callable[[URL], Agency]


@pytest.fixture
def bison(stage: Stage) -> Iterator[Bison]:
    """A sandbox that stands still at this moment, far from any midnight."""
    zone = calm_zone()
    with bison_on(stage, options(today=None, timezone=zone.key)) as fresh:
        fresh.freeze(datetime.now(UTC).isoformat())
        yield fresh


@contextmanager
def agency_on(
    database: URL,
    bison: Bison,
    monkeypatch: pytest.MonkeyPatch,
    zone: ZoneInfo | None = None,
    now: Callable[[], datetime] = utc_now,
) -> Iterator[Agency]:
    """The sandbox's clients, in an installation that every process finds in its environment."""
    zone = zone or calm_zone()
    for name, value in {
        "DATABASE_URL": address(database),
        "BISON_INSTANCES": format_instances([instance_of(bison)]),
        "BISON_CALLS_PER_SECOND": "0",
        "BISON_TIMEZONE": zone.key,
        "TIMEZONE": zone.key,
        "SECRET_KEY": new_secret_key(),
    }.items():
        monkeypatch.setenv(f"KPI_{name}", value)
    with open_app(load_settings(), now) as app:
        yield open_agency(app, bison)


@pytest.fixture
def agency(database: URL, bison: Bison, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agency]:
    """The agency on the tests' own server."""
    with agency_on(database, bison, monkeypatch) as agency:
        yield agency


def today_of(agency: Agency) -> date:
    """The business date of the installation."""
    return business_date(datetime.now(UTC), agency.app.timezone)
