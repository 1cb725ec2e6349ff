"""The overview in chromium: usable by everybody, on any screen, and without a script."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page
from sqlalchemy import Engine

from kpi_pipeline.dashboard.app import create_app
from kpi_pipeline.dashboard.live import Live
from kpi_pipeline.dashboard.site import Site
from kpi_pipeline_tests.dashboard.live_support import served
from kpi_pipeline_tests.dashboard.pages import no_violations
from kpi_pipeline_tests.dashboard.rows import ONE_DAY, TODAY, put_clients, put_outcome, put_rows

pytestmark = pytest.mark.browser


@pytest.fixture
def address(dashboard_site: Site, engine: Engine) -> Iterator[str]:
    """A dashboard with every kind of row: problems, wrong and missing values, and none."""
    put_clients(engine, "acme", "birch", "cedar", "daisy", "elm")
    put_clients(engine, "script", name="<script>alert(1)</script>")
    days = [TODAY - number * ONE_DAY for number in range(60)]
    put_rows(engine, "acme", days)
    put_rows(engine, "birch", days, target=20)
    put_rows(engine, "cedar", days, target=None, sending_target=None)
    put_rows(engine, "daisy", emails_sent_mtd=-5, bounce_rate_mtd=140)
    put_rows(engine, "script")
    put_outcome(engine, "plausible", [{"workspace": "acme", "problem": "6 % of 500 bounced"}])
    put_outcome(engine, "freshness", [{"workspace": "elm", "problem": "late"}], severity="ERROR")
    live = Live(dashboard_site)
    with served(create_app(dashboard_site, live), live.close) as (url, _):
        yield url


def opened(chromium: Browser, url: str, **context: object) -> Page:
    page = chromium.new_context(**context).new_page()  # type: ignore[arg-type]
    page.goto(url)
    return page


@pytest.mark.parametrize("colors", ["light", pytest.param("dark", marks=pytest.mark.long)])
@pytest.mark.parametrize("query", ["", "?view=cards", "?month=2026-02&cols=bounced_mtd,age"])
def test_axe_finds_nothing_on_the_overview(
    chromium: Browser, address: str, query: str, colors: str
) -> None:
    page = opened(chromium, f"{address}/{query}", color_scheme=colors)
    no_violations(page)
    # One is open at a time: they would cover each other.
    for number in range(page.locator("details").count()):
        page.locator("details").evaluate_all(
            "(all, n) => all.forEach((it, at) => it.open = at == n)", number
        )
        no_violations(page, "details[open]")
    page.context.close()


def test_on_a_phone_nothing_is_wider_than_the_screen_and_each_client_has_its_bar(
    chromium: Browser, address: str
) -> None:
    for query in ("", "?view=cards"):
        page = opened(chromium, f"{address}/{query}", viewport={"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        bar = page.locator("#row-acme .bullet")
        assert bar.is_visible()
        name = page.locator("#row-acme :is(th, h3)").bounding_box()
        assert name is not None
        assert name["width"] > 300
        no_violations(page)
        page.context.close()


def test_without_a_script_the_page_is_whole_and_its_forms_work(
    chromium: Browser, address: str
) -> None:
    page = opened(chromium, address, java_script_enabled=False)
    assert page.locator("tbody tr").count() == 6
    page.get_by_role("searchbox").fill("birch")
    page.get_by_role("searchbox").press("Enter")
    assert page.locator("tbody tr").count() == 1
    assert page.url.endswith("/?q=birch")
    page.locator("summary", has_text="Columns").click()
    page.get_by_label("bounces", exact=True).check()
    page.locator("form.wide button").click()
    assert page.get_by_role("columnheader", name="Bounces").is_visible()
    page.get_by_role("link", name="Cards").click()
    assert page.locator("article").count() == 1
    assert "q=birch" in page.url
    page.context.close()


def test_the_pages_policy_finds_nothing_to_stop_and_no_script_of_a_name_runs(
    chromium: Browser, address: str
) -> None:
    page = chromium.new_context().new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.goto(address)
    assert page.get_by_text("<script>alert(1)</script>").is_visible()
    assert said == []
    page.context.close()


def test_motion_is_left_out_for_those_who_ask_for_it(chromium: Browser, address: str) -> None:
    page = opened(chromium, address, reduced_motion="reduce")
    page.evaluate("document.querySelector('#row-acme [data-c]').classList.add('changed')")
    style = "getComputedStyle(document.querySelector('.changed'))"
    assert page.evaluate(f"{style}.animationName") == "none"
    assert page.evaluate(f"{style}.backgroundColor") != "rgba(0, 0, 0, 0)"
    page.context.close()


def test_on_paper_there_are_the_numbers_and_no_controls(chromium: Browser, address: str) -> None:
    page = opened(chromium, address)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("#row-acme").is_visible()
    assert not page.locator(".controls").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.context.close()
