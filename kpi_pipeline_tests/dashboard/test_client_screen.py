"""The pages of one client and of the past: valid, usable by everybody, live, on any screen."""

from collections.abc import Iterator
from datetime import date, timedelta

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import Engine, delete, update

from kpi_pipeline.dashboard.app import create_app
from kpi_pipeline.dashboard.live import Live
from kpi_pipeline.dashboard.site import Site
from kpi_pipeline.db.tables import client_metrics, raw_bison_stats
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline_tests.conftest import NOW
from kpi_pipeline_tests.dashboard.client_pages import put_reply, put_sync
from kpi_pipeline_tests.dashboard.live_support import served
from kpi_pipeline_tests.dashboard.pages import no_violations, valid
from kpi_pipeline_tests.dashboard.rows import TODAY, put_clients, put_outcome, put_rows, put_target

# Every kind of page, and of what may be missing on it.
PATHS = [
    "/clients/harbor",
    "/clients/harbor?month=2026-02",
    "/clients/quay",
    "/clients/script",
    "/clients/gone",
    "/compare?c=harbor&c=script&c=gone&c=quay",
    "/clients/harbor/report",
    "/compare?c=harbor",
    "/year",
    "/accuracy",
]
# axe-core takes seconds for a month of rows, and the first page has all of them.
_FEW_DAYS = {"exclude": [["[aria-labelledby=month-table] tbody tr:nth-child(n+6)"]]}


@pytest.fixture
def _agency(engine: Engine) -> None:
    """A client with everything, one with nothing, one called like a script, and one that left."""
    put_clients(engine, "harbor", "quay")
    put_clients(engine, "script", name="<script>alert(1)</script>")
    put_clients(engine, "gone", active=False)
    put_rows(engine, "harbor", days_between(date(2025, 12, 10), TODAY), facts=True)
    put_rows(engine, "script", days_between(date(2026, 1, 10), TODAY), target=None)
    put_rows(engine, "gone", days_between(date(2025, 12, 1), date(2026, 2, 5)))
    put_target(engine, "harbor", 60, 4000)
    put_sync(engine, error="Email Bison answered 503.")
    put_reply(engine, NOW - timedelta(hours=2), "webhook")
    put_outcome(engine, "plausible", [{"workspace": "harbor", "problem": "6 % of 500 bounced"}])
    with engine.begin() as connection:
        connection.execute(
            delete(raw_bison_stats).where(raw_bison_stats.c.date == date(2026, 3, 4))
        )
        connection.execute(
            delete(client_metrics).where(client_metrics.c.metric_date == date(2026, 3, 4))
        )


@pytest.fixture
def address(_agency: None, dashboard_site: Site) -> Iterator[str]:
    live = Live(dashboard_site)
    with served(create_app(dashboard_site, live), live.close) as (url, _):
        yield url


def opened(chromium: Browser, url: str, **context: object) -> Page:
    page = chromium.new_context(**context).new_page()  # type: ignore[arg-type]
    page.goto(url)
    return page


@pytest.mark.usefixtures("_agency")
def test_the_pages_of_clients_and_of_the_past_are_valid_html(browse: httpx.Client) -> None:
    for path in PATHS:
        valid(browse.get(path).text)


@pytest.mark.browser
@pytest.mark.parametrize("colors", ["light", pytest.param("dark", marks=pytest.mark.long)])
def test_axe_finds_nothing_on_them(chromium: Browser, address: str, colors: str) -> None:
    for path in PATHS:
        page = opened(chromium, f"{address}{path}", color_scheme=colors)
        page.locator("details").evaluate_all("(all) => all.forEach((it) => it.open = true)")
        no_violations(page, _FEW_DAYS if colors == "light" and path in PATHS[1:5] else None)
        page.context.close()


@pytest.mark.browser
def test_on_a_phone_none_is_wider_than_the_screen_and_charts_have_their_own_drawing(
    chromium: Browser, address: str
) -> None:
    for path in PATHS:
        page = opened(chromium, f"{address}{path}", viewport={"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") == 390, path
        assert page.locator(".chart.wide:visible").count() == 0
        page.context.close()


@pytest.mark.browser
def test_without_a_script_the_page_reads_well(chromium: Browser, address: str) -> None:
    page = opened(chromium, f"{address}/clients/harbor", java_script_enabled=False)
    page.get_by_text("March 2026", exact=True).first.click()
    page.get_by_role("link", name="February 2026").click()
    expect(page.locator("#badge")).to_contain_text("Final")
    expect(page.locator("#numbers [data-c=positive_replies_mtd]")).to_be_visible()
    page.context.close()


@pytest.mark.browser
def test_a_changed_row_changes_the_open_page_in_each_place(
    chromium: Browser, address: str, engine: Engine
) -> None:
    page = opened(chromium, f"{address}/clients/harbor")
    number = page.locator("#numbers [data-c=positive_replies_mtd]")
    before = page.locator("#history").inner_html()
    drawings = page.locator("svg").count()
    # The page is subscribed once it knows the server's time; a change before is sent then, too.
    with engine.begin() as connection:
        connection.execute(
            update(client_metrics)
            .where(client_metrics.c.metric_date == TODAY, client_metrics.c.workspace == "harbor")
            .values(positive_replies_mtd=4321, projection_positive_replies_eom=5000)
        )
    expect(number).to_have_text("4,321", timeout=20_000)
    expect(page.locator(f"#day-{TODAY} [data-c=positive_replies_mtd]")).to_have_text("4,321")
    expect(page.locator("#history [data-c=positive_replies_mtd]")).to_have_text("4,321")
    expect(page.locator(".chart.wide .of-line").first).to_have_text("4,321")
    # Nothing is lost: tables and charts that did not change are as they were.
    assert page.locator("svg").count() == drawings
    assert page.locator("#history").inner_html().count("<tr") == before.count("<tr")
    page.context.close()
