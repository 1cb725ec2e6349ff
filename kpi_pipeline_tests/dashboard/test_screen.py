"""The dashboard in a real browser: an agency of 26 clients, a gateway, and an open page."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, expect
from pydantic import SecretStr
from sqlalchemy import URL

from kpi_pipeline.dashboard import live as live_module
from kpi_pipeline.dashboard.app import create_app
from kpi_pipeline.dashboard.live import Live
from kpi_pipeline.dashboard.site import Site
from kpi_pipeline.gateway.app import create_app as create_gateway
from kpi_pipeline.inbox.ingest import inbox_of
from kpi_pipeline_tests.agency import Agency, agency_on, ten_o_clock
from kpi_pipeline_tests.bison_sandbox.running import Stage, bison_on, options
from kpi_pipeline_tests.dashboard.live_support import served
from kpi_pipeline_tests.end_to_end.chromium import open_page
from kpi_pipeline_tests.end_to_end.one_agency.test_screen import require_chromium
from kpi_pipeline_tests.gateway.support import serving

pytestmark = pytest.mark.browser

_SECRET = "a-secret-of-the-tests-0123456789"
# Longer than anything takes on a busy machine; the benchmark says how long it takes on a quiet one.
_DEADLINE_MS = 20_000
_STALE_AFTER_HOURS = 2.0


class Clock:
    """The time of the machine, and how far a test moved it on."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class Screen:
    """An agency whose webhooks come to a gateway, and its dashboard on an open page."""

    agency: Agency
    clock: Clock
    page: Page


@contextmanager
def screen(database: URL, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    chromium = require_chromium()
    # How often the server looks at the time, for what changes with it.
    monkeypatch.setattr(live_module, "BEAT_SECONDS", 0.5)
    clock = Clock()
    with ExitStack() as stack:
        zone = ten_o_clock()
        bison = stack.enter_context(bison_on(stage, options(today=None, timezone=zone.key)))
        bison.freeze(None)
        agency = stack.enter_context(agency_on(database, bison, monkeypatch, zone))
        agency.synced([agency.today - timedelta(days=1), agency.today])
        app = agency.app
        inbox = inbox_of(app, realtime=True)
        gateway = serving(create_gateway(inbox, {"main": SecretStr(_SECRET)}))
        address = stack.enter_context(gateway).base_url
        agency.control("POST", "parent-hook", url=f"{address}/webhooks/bison/{_SECRET}")
        settings = app.settings.model_copy(update={"stale_after_hours": _STALE_AFTER_HOURS})
        site = Site(settings, app.engine, clock)
        live = Live(site)
        url, _ = stack.enter_context(served(create_app(site, live), live.close))
        page = stack.enter_context(open_page(chromium))
        page.goto(f"{url}/")
        yield Screen(agency, clock, page)


@pytest.fixture
def opened(database: URL, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    with screen(database, stage, monkeypatch) as it:
        yield it


def test_a_lead_of_the_sandbox_changes_the_open_page_without_a_reload(opened: Screen) -> None:
    agency, page = opened.agency, opened.page
    workspace = agency.workspaces[3]
    expect(page.locator("tbody tr")).to_have_count(26)
    number = page.locator(f"#row-{workspace} [data-c=positive_replies_mtd]").first
    total = page.locator("#totals [data-c=total_positive_replies]").first
    before, all_before = (int(it.inner_text().replace(",", "")) for it in (number, total))
    page.evaluate("window.openedOnce = true")

    agency.control("POST", "mark-interested", workspace_id=agency.ids[workspace], leads=2)

    expect(number).to_have_text(f"{before + 2:,}", timeout=_DEADLINE_MS)
    expect(total).to_have_text(f"{all_before + 2:,}", timeout=_DEADLINE_MS)
    expect(page.locator("#badge")).to_contain_text("Live")
    assert page.evaluate("window.openedOnce"), "the page was not loaded again"


def test_without_syncs_the_open_page_turns_stale_at_the_set_time(opened: Screen) -> None:
    badge = opened.page.locator("#badge")
    expect(badge).to_contain_text("Live")

    for minutes, said in ((10, "Fresh"), (_STALE_AFTER_HOURS * 60 + 1, "Stale")):
        opened.clock.ahead = timedelta(minutes=minutes)
        expect(badge).to_contain_text(said, timeout=_DEADLINE_MS)
    expect(badge).to_have_text(re.compile("2 h [1-9] min old"))
