"""The pages of actions in a real browser: progress in place, and nothing for axe-core to find."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import Engine

from kpi_pipeline.dashboard.app import create_app
from kpi_pipeline.dashboard.live import Live
from kpi_pipeline.dashboard.site import Site
from kpi_pipeline.db.alerts import mute
from kpi_pipeline.db.dashboard.requests import Status, end_request, start_request
from kpi_pipeline.db.day_zone import store_day_zone
from kpi_pipeline.db.registry.targets import Targets, set_targets
from kpi_pipeline.db.sync_log import store_entry
from kpi_pipeline_tests.conftest import NOW
from kpi_pipeline_tests.dashboard.live_support import served
from kpi_pipeline_tests.dashboard.pages import no_violations, valid
from kpi_pipeline_tests.dashboard.rows import CHICAGO, MONTH, put_clients, put_outcome
from kpi_pipeline_tests.dashboard.test_actions import entry
from kpi_pipeline_tests.end_to_end.chromium import new_page

pytestmark = pytest.mark.browser

_HOSTILE = "<script>alert(1)</script>"
_CLIENT_PAGES = (
    "targets",
    "mute",
    "fill",
    "fill?from=x",
    "targets/1/undo",
    "refresh",
    "deactivate",
)


@pytest.fixture
def page(dashboard_site: Site, engine: Engine, chromium: Browser) -> Iterator[tuple[Page, str]]:
    """An empty page, and the address of a dashboard with two clients."""
    put_clients(engine, "acme", name=_HOSTILE)
    put_clients(engine, "birch")
    live = Live(dashboard_site)
    with (
        served(create_app(dashboard_site, live), live.close) as (url, _),
        new_page(chromium) as opened,
    ):
        yield opened, url


def test_a_refresh_is_pressed_and_its_progress_changes_in_place_until_it_is_done(
    page: tuple[Page, str], engine: Engine
) -> None:
    opened, url = page
    opened.goto(f"{url}/refresh")
    opened.get_by_role("button", name="Refresh all").click()
    expect(opened.get_by_role("heading", name="Waiting")).to_be_visible()
    opened.evaluate("window.stayed = true")

    with engine.begin() as connection:
        start_request(connection, 1, "a-run")
        store_entry(connection, entry("a-run", "acme"))
    expect(opened.get_by_text("1 of 2 clients done.")).to_be_visible()
    with engine.begin() as connection:
        end_request(connection, 1, Status.SUCCEEDED, "2 clients fetched with 6 calls.", NOW)

    expect(opened.get_by_role("heading", name="Done")).to_be_visible()
    assert opened.evaluate("window.stayed"), "without a reload"
    opened.get_by_role("link", name="All requests").click()
    expect(opened.get_by_text("2 clients fetched with 6 calls.")).to_be_visible()


def test_the_pages_of_actions_are_accessible_and_show_names_as_text(
    page: tuple[Page, str], engine: Engine
) -> None:
    opened, url = page
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda it: errors.append(it.text) if it.type == "error" else None)
    opened.on("dialog", lambda it: errors.append(it.message))
    missing = [{"workspace": "acme", "missing": "2026-03-02 to 2026-03-04", "days": 3}]
    put_outcome(engine, "complete", missing, severity="ERROR")
    with engine.begin() as connection:
        store_day_zone(connection, CHICAGO)
        set_targets(connection, "acme", MONTH, Targets(50), changed_by="ada", zone=CHICAGO)
        mute(connection, "acme:complete", NOW + timedelta(days=2), NOW)
    opened.goto(f"{url}/clients/acme/refresh")
    opened.get_by_role("button").first.click()
    with engine.begin() as connection:
        start_request(connection, 1, "a-run")
        store_entry(connection, entry("a-run", "acme", f"acme: {_HOSTILE} is rejected."))
    paths = ["/requests/1", "/requests", *(f"/clients/acme/{it}" for it in _CLIENT_PAGES)]
    paths += ["/refresh", "/clients/acme/unmute?check=complete"]

    for path in paths:
        valid(opened.request.get(f"{url}{path}").text())
    for scheme, width, shown in (("light", 1280, paths), ("dark", 390, paths[:5])):
        opened.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        opened.set_viewport_size({"width": width, "height": 800})
        for path in shown:
            opened.goto(f"{url}{path}")
            expect(opened.get_by_role("heading", level=1)).to_be_visible()
            no_violations(opened)
            wide = opened.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{path} is {wide} wide"
    assert errors == []


def test_without_javascript_the_targets_are_changed_and_taken_back(
    page: tuple[Page, str], engine: Engine
) -> None:
    opened, url = page
    with engine.begin() as connection:
        store_day_zone(connection, CHICAGO)
    assert opened.context.browser is not None
    plain = opened.context.browser.new_page(java_script_enabled=False)
    plain.goto(f"{url}/clients/birch/targets")
    plain.get_by_label("Positive replies a month").fill("120")
    plain.get_by_role("button", name="Save the targets").click()
    expect(plain.get_by_text("In March 2026: 120 positive replies, – emails.")).to_be_visible()
    plain.get_by_role("link", name="Take back…").click()
    plain.get_by_role("button", name="Take it back").click()
    expect(plain.get_by_text("took a change back")).to_be_visible()
    plain.get_by_role("link", name="‹ Birch").click()
    assert plain.url == f"{url}/clients/birch"
