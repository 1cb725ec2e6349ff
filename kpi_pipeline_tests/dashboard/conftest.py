from collections.abc import Iterator
from zoneinfo import ZoneInfo

import httpx
import pytest
from playwright.sync_api import Browser
from sqlalchemy import Engine

from kpi_pipeline.dashboard.app import create_app
from kpi_pipeline.dashboard.site import Site
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.conftest import NOW
from kpi_pipeline_tests.dashboard.browsing import browsing
from kpi_pipeline_tests.dashboard.pages import require_chromium
from kpi_pipeline_tests.end_to_end.chromium import running_browser


@pytest.fixture
def dashboard_site(engine: Engine) -> Iterator[Site]:
    """A dashboard on the test's own database, without a login, at NOW; days are Chicago's."""
    zone = ZoneInfo("America/Chicago")
    site = Site(Settings(timezone=zone, bison_timezone=zone), engine, lambda: NOW)
    yield site
    site.close()


@pytest.fixture
def browse(dashboard_site: Site) -> Iterator[httpx.Client]:
    """Asks that dashboard for pages, as a browser on this machine."""
    with browsing(create_app(dashboard_site)) as browser:
        yield browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with running_browser(require_chromium()) as browser:
        yield browser
