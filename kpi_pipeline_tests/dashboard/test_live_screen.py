"""An open page in a real browser takes changes in, marks them, and does not grow."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, CDPSession, Page, expect
from sqlalchemy import Engine, text

from kpi_pipeline.dashboard import live as live_module
from kpi_pipeline.dashboard.app import create_app
from kpi_pipeline.dashboard.live import Live
from kpi_pipeline.dashboard.look_back import LookBack
from kpi_pipeline.dashboard.overview.page import OpenPages
from kpi_pipeline.dashboard.overview.view import View
from kpi_pipeline.dashboard.site import Site
from kpi_pipeline.db.dashboard.changes import Change, Subject
from kpi_pipeline_tests.cli.running import wait_until
from kpi_pipeline_tests.dashboard.live_support import DEADLINE_SECONDS, served
from kpi_pipeline_tests.dashboard.rows import TODAY, put_clients, put_rows
from kpi_pipeline_tests.end_to_end.chromium import new_page

pytestmark = pytest.mark.browser

_WORKSPACES = [f"client-{number:02}" for number in range(26)]
_BATCH = 20
_DEADLINE_MS = 1000 * DEADLINE_SECONDS


class PushedLive(Live):
    """Live pages to which another thread may push changes."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.loop = asyncio.get_running_loop()
        async with super().running():
            yield

    def push(self, change: Change) -> None:
        self.loop.call_soon_threadsafe(self.note, change)


@dataclass
class Screen:
    """The overview of 26 clients, open in a browser."""

    page: Page
    live: PushedLive
    site: Site


@pytest.fixture
def screen(
    engine: Engine, dashboard_site: Site, monkeypatch: pytest.MonkeyPatch, chromium: Browser
) -> Iterator[Screen]:
    # Many changes in a short time are no burst here.
    monkeypatch.setattr(live_module, "GATHER_SECONDS", 0.002)
    put_clients(engine, *_WORKSPACES)
    for workspace in _WORKSPACES:
        put_rows(engine, workspace)
    live = PushedLive(dashboard_site)
    with (
        served(create_app(dashboard_site, live), live.close) as (url, _),
        new_page(chromium) as page,
    ):
        page.goto(f"{url}/")
        wait_until(lambda: live.open_pages == 1, "the stream")
        yield Screen(page, live, dashboard_site)


def change(engine: Engine, workspace: str, values: str) -> None:
    statement = text(f"UPDATE client_metrics SET {values} WHERE workspace = :workspace")
    with engine.begin() as connection:
        connection.execute(statement, {"workspace": workspace})


def test_a_changed_number_changes_in_place_and_is_marked_for_a_moment(
    screen: Screen, engine: Engine
) -> None:
    page = screen.page
    number = page.locator("#row-client-07 [data-c=emails_sent_mtd]")
    other = page.locator("#row-client-08 [data-c=emails_sent_mtd]")
    before = page.locator("#row-client-07").element_handle()
    page.locator("#row-client-07 a").first.focus()
    change(engine, "client-07", "emails_sent_mtd = 123456")
    expect(number).to_have_text("123,456", timeout=_DEADLINE_MS)
    expect(other).not_to_have_class("changed")
    # The row is the same element, with the reader's focus in it.
    assert before is not None
    assert before.evaluate("row => row.isConnected && row.contains(document.activeElement)")
    expect(number).not_to_have_class("changed", timeout=_DEADLINE_MS)
    # Told to a screen reader, too, once for all that changed within ten seconds.
    expect(page.locator("[aria-live=polite]")).to_contain_text("Client 07", timeout=_DEADLINE_MS)


def test_marks_show_and_go_without_motion(screen: Screen, engine: Engine) -> None:
    page = screen.page
    page.emulate_media(reduced_motion="reduce")
    number = page.locator("#row-client-07 [data-c=emails_sent_mtd]")
    # A busy machine may ask for the mark only when it is gone again. The number is so large that a
    # sign comes beside it.
    page.locator("#row-client-07").evaluate(
        """row => new MutationObserver(() => {
            window.marked ||= row.querySelector(".changed")?.dataset.c;
        }).observe(row, { attributeFilter: ["class"], subtree: true })"""
    )
    change(engine, "client-07", "emails_sent_mtd = 123456")
    expect(number).to_have_text("123,456", timeout=_DEADLINE_MS)
    wait_until(lambda: page.evaluate("window.marked") == "emails_sent_mtd", "the mark")
    expect(number).not_to_have_class("changed", timeout=_DEADLINE_MS)


def test_a_client_that_comes_or_goes_does_so_on_the_open_page(
    screen: Screen, engine: Engine
) -> None:
    rows = screen.page.locator("tbody tr")
    expect(rows).to_have_count(26)
    put_clients(engine, "newcomer")
    expect(rows).to_have_count(27, timeout=_DEADLINE_MS)
    with engine.begin() as connection:
        connection.execute(text("UPDATE clients SET active = false WHERE workspace = 'client-03'"))
    expect(screen.page.locator("#row-client-03")).to_have_count(0, timeout=_DEADLINE_MS)
    expect(screen.page.locator("#counted")).to_contain_text("25 of 26 clients")


def test_a_lost_connection_is_said_and_what_it_missed_comes_after_it(
    engine: Engine, dashboard_site: Site, chromium: Browser
) -> None:
    put_clients(engine, "acme")
    put_rows(engine, "acme")
    with new_page(chromium) as page:
        live = Live(dashboard_site)
        with served(create_app(dashboard_site, live), live.close) as (url, _):
            page.goto(f"{url}/")
            wait_until(lambda: live.open_pages == 1, "the stream")
        notice = page.locator(".live-notice")
        expect(notice).to_contain_text("Connection lost", timeout=_DEADLINE_MS)
        change(engine, "acme", "emails_sent_mtd = 123456")
        again, port = Live(dashboard_site), int(url.rpartition(":")[2])
        with served(create_app(dashboard_site, again), again.close, port=port):
            number = page.locator("#row-acme [data-c=emails_sent_mtd]")
            expect(number).to_have_text("123,456", timeout=_DEADLINE_MS)
            expect(notice).to_be_empty()


@pytest.mark.long
def test_a_page_left_open_for_a_day_takes_no_more_memory(
    screen: Screen, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several thousand numbers change: of one row, and of the whole list."""
    page = screen.page
    html = _states(screen, engine)
    sent = 0

    def render(_: OpenPages, __: object) -> str:
        return f'{html[sent % len(html)]}<span id="counted">{sent}</span>'

    monkeypatch.setattr(OpenPages, "__call__", render)
    browser = page.context.new_cdp_session(page)
    usage = []
    for batches in (4, 20):
        for _ in range(batches):
            for _ in range(_BATCH):
                sent += 1
                screen.live.push(Change(Subject.ROWS, "client-07"))
                time.sleep(0.004)
            expect(page.locator("#counted")).to_have_text(str(sent), timeout=_DEADLINE_MS)
        usage.append(_usage(browser))
    (heap, nodes, listeners), (heap_after, nodes_after, listeners_after) = usage
    assert nodes_after <= nodes + 100
    # A listener for each change would be more than two thousand.
    assert listeners_after <= listeners + 50
    assert heap_after - heap < 200_000, f"{heap:,} bytes before, {heap_after:,} after"


def _states(screen: Screen, engine: Engine) -> list[str]:
    """What pages get for a row there and back, and for a list there and back, in turn."""
    render = OpenPages(screen.site, View(LookBack("/", TODAY, TODAY)))
    found = []
    for emails in (1000, 1001):
        for workspace in _WORKSPACES:
            change(engine, workspace, f"emails_sent_mtd = {emails}")
        found.append(render(frozenset({"client-07"})))
        found.append(render(None))
    return found


def _usage(browser: CDPSession) -> tuple[float, int, int]:
    """Bytes of the heap, nodes and listeners, after the garbage was collected."""
    browser.send("HeapProfiler.collectGarbage")
    heap = browser.send("Runtime.getHeapUsage")["usedSize"]
    counters = browser.send("Memory.getDOMCounters")
    return heap, counters["nodes"], counters["jsEventListeners"]
