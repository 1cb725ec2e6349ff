"""A change that is committed reaches every open page, rendered once for all that show the same."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import anyio
import httpx
import pytest
from sqlalchemy import Engine, text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import Message

from kpi_pipeline.dashboard import live as live_module
from kpi_pipeline.dashboard.live import Changed, Live, LiveView, stream
from kpi_pipeline.dashboard.site import Site
from kpi_pipeline_tests.cli.running import wait_until
from kpi_pipeline_tests.dashboard.live_support import OpenPage, Renderer, ServedLive, served_live
from kpi_pipeline_tests.dashboard.rows import put_clients, put_rows

_ADD_ONE = text(
    "UPDATE client_metrics SET positive_replies_mtd = positive_replies_mtd + 1 "
    "WHERE workspace = ANY(:workspaces)"
)


@pytest.fixture
def stocked(engine: Engine) -> Engine:
    put_clients(engine, "acme", "beta", "cobalt")
    for workspace in ("acme", "beta", "cobalt"):
        put_rows(engine, workspace)
    return engine


@pytest.fixture
def served(stocked: Engine, dashboard_site: Site) -> Iterator[ServedLive]:
    with served_live(Live(dashboard_site), Renderer()) as opened:
        yield opened


def change(engine: Engine, *workspaces: str) -> None:
    with engine.begin() as connection:
        connection.execute(_ADD_ONE, {"workspaces": list(workspaces)})


def settled(served: ServedLive, engine: Engine, *pages: OpenPage) -> None:
    """Make a change, which pages that came just now get with everything else, once."""
    change(engine, "cobalt")
    for page in pages:
        assert page.next("change").data == "everything"


def test_a_committed_change_reaches_an_open_page_within_a_second(
    served: ServedLive, engine: Engine
) -> None:
    page = served.open()
    settled(served, engine, page)
    change(engine, "acme")
    committed = time.monotonic()
    event = page.next("change")
    assert event.data == "acme"
    assert event.version == served.live.version
    assert event.at - committed < 1


def test_a_change_that_is_rolled_back_reaches_no_page(served: ServedLive, engine: Engine) -> None:
    page = served.open()
    settled(served, engine, page)
    with engine.connect() as connection:
        connection.execute(_ADD_ONE, {"workspaces": ["acme"]})
        connection.rollback()
    change(engine, "beta")
    # Had it notified, it would have come before, or with it.
    assert page.next("change").data == "beta"


def test_a_burst_is_rendered_once_for_all_pages_that_show_the_same(
    served: ServedLive, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "GATHER_SECONDS", 1.0)
    pages = [served.open() for _ in range(5)]
    other = served.open("acme alone")
    settled(served, engine, *pages, other)
    served.render.asked.clear()
    for number in range(30):
        change(engine, ("acme", "beta")[number % 2])
    assert {page.next("change").data for page in pages} == {"acme beta"}
    assert other.next("change").data == "acme beta"
    assert served.render.asked == [frozenset({"acme", "beta"})] * 2


def test_nothing_is_sent_where_nothing_changed_for_a_page(
    served: ServedLive, engine: Engine
) -> None:
    page = served.open()
    settled(served, engine, page)
    served.render.answers = lambda changed: "acme" if changed and "acme" in changed else ""
    change(engine, "beta")
    wait_until(lambda: frozenset({"beta"}) in served.render.asked, "the rendering")
    change(engine, "acme")
    assert page.next("change").data == "acme"


@pytest.mark.parametrize("table", ["clients", "check_outcomes"])
def test_clients_and_checks_change_everything(
    served: ServedLive, engine: Engine, table: str
) -> None:
    page = served.open()
    settled(served, engine, page)
    with engine.begin() as connection:
        connection.execute(text(f"DELETE FROM {table} WHERE false"))
    assert page.next("change").data == "everything"


def test_a_request_makes_pages_ask_for_its_progress(served: ServedLive, engine: Engine) -> None:
    page = served.open()
    page.waiting()
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM action_requests WHERE false"))
    page.next("requests")


def test_html_arrives_as_it_was_rendered(served: ServedLive, engine: Engine) -> None:
    page = served.open()
    served.render.answers = lambda _: "<tr id=a>\r\n<td>Ünal &amp; Co\n\n</td>\r</tr>\n"
    change(engine, "acme")
    assert page.next("change").data == "<tr id=a>\n<td>Ünal &amp; Co\n\n</td>\n</tr>\n"


def test_a_page_that_missed_a_change_gets_everything_at_once(
    served: ServedLive, engine: Engine
) -> None:
    page = served.open()
    settled(served, engine, page)
    change(engine, "acme")
    seen = page.next("change").version
    # Its connection is lost, and meanwhile something changes.
    change(engine, "beta")
    wait_until(lambda: served.live.version != seen, "the change")
    assert OpenPage(f"{served.url}/live", view="another", since=seen).next("change").data == (
        "everything"
    )


def test_a_page_that_missed_nothing_gets_nothing(served: ServedLive, engine: Engine) -> None:
    page = served.open()
    settled(served, engine, page)
    served.render.asked.clear()
    again = served.open("another")
    change(engine, "beta")
    # Not before the change: that would have been rendered, too.
    assert again.next("change").data == "everything"
    assert page.next("change").data == "beta"
    assert len(served.render.asked) == 2


def test_what_changes_with_time_alone_is_rendered_at_each_beat(
    served: ServedLive, engine: Engine
) -> None:
    page = served.open()
    settled(served, engine, page)
    served.render.answers = lambda changed: "older" if changed == frozenset() else "all"
    served.beat()
    assert page.next("change").data == "older"


def test_each_beat_tells_the_servers_time(served: ServedLive, dashboard_site: Site) -> None:
    page = served.open()
    assert page.next("time").data == dashboard_site.now().isoformat()
    served.beat()
    assert page.next("time").data == dashboard_site.now().isoformat()


def test_a_page_too_slow_for_its_events_is_told_to_reload_and_takes_no_memory(
    served: ServedLive, engine: Engine
) -> None:
    fast = served.open()
    settled(served, engine, fast)
    served.render.answers = lambda _: "x" * 1_000_000
    with httpx.Client(timeout=60, trust_env=False) as http:
        query = {"view": "overview", "since": served.live.version}
        with http.stream("GET", f"{served.url}/live", params=query) as slow:
            lines = slow.iter_lines()
            assert next(lines).startswith("retry")
            for _ in range(40):
                change(engine, "acme")
                assert len(fast.next("change").data) == 1_000_000
            # The rest of what was on its way comes first, then the end.
            names = [line for line in lines if line.startswith("event: ")]
    assert names[-1] == "event: reload"
    assert len(names) < 40


def test_pages_reload_when_another_day_begins(stocked: Engine, dashboard_site: Site) -> None:
    clock = [dashboard_site.now()]
    live = Live(replace(dashboard_site, now=lambda: clock[0]))
    with served_live(live, Renderer()) as served:
        page = served.open()
        clock[0] += timedelta(days=1)
        served.beat()
        page.next("reload")
        assert page.ended()


def test_pages_are_told_while_the_numbers_cannot_be_read(
    served: ServedLive, engine: Engine
) -> None:
    page = served.open()
    settled(served, engine, page)
    right = served.render.answers

    def fails(_: Changed) -> str:
        raise RuntimeError("made up")

    served.render.answers = fails
    change(engine, "acme")
    page.next("away")
    change(engine, "acme")
    wait_until(lambda: len(served.render.asked) >= 3, "another try")
    served.render.answers = right
    change(engine, "beta")
    page.next("back")
    # Nothing is lost of what changed meanwhile.
    assert page.next("change").data == "everything"


def test_a_stop_ends_every_stream_at_once_and_leaves_no_thread(
    stocked: Engine, dashboard_site: Site
) -> None:
    before = set(threading.enumerate())
    with served_live(Live(dashboard_site), Renderer()) as served:
        pages = [served.open() for _ in range(20)]
        stopped = time.monotonic()
        served.server.should_exit = True
        assert all(page.ended() for page in pages)
        # Sooner than uvicorn would have cut them off.
        assert time.monotonic() - stopped < 4
    wait_until(lambda: set(threading.enumerate()) <= before, "the end of all threads")


def test_nobody_is_left_of_pages_that_were_closed(served: ServedLive, engine: Engine) -> None:
    page = served.open()

    def opened() -> str:
        return f"{served.live.open_pages} pages are open"

    with httpx.stream("GET", f"{served.url}/live", params={"view": "closed"}) as closed:
        # Kept: without it, httpx ends the stream.
        lines = closed.iter_lines()
        next(lines)
        wait_until(lambda: served.live.open_pages == 2, "both pages", details=opened)
    wait_until(lambda: served.live.open_pages == 1, "the end of one", details=opened)
    settled(served, engine, page)


def test_nobody_is_left_of_a_page_that_was_closed_while_an_event_was_sent(
    dashboard_site: Site,
) -> None:
    app = Starlette()
    app.state.live = live = Live(dashboard_site)
    live.is_running = True
    scope = {"type": "http", "method": "GET", "headers": [], "query_string": b"", "app": app}

    async def closed() -> int:
        response = stream(Request(scope), LiveView("overview", Renderer()))
        is_sent = anyio.Event()

        async def receive() -> Message:
            await is_sent.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body":
                assert live.open_pages == 1
                is_sent.set()
                await anyio.sleep_forever()

        await response(scope, receive, send)
        return live.open_pages

    assert anyio.run(closed) == 0
