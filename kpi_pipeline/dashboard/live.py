"""Live pages: what changes in the tables reaches every open page that shows it.

Pages that show the same are one topic: a burst of changes is rendered once for each topic, in a
thread, and sent to its pages as server-sent events:

- `change`: HTML whose elements replace those of the same id
- `requests`: what people asked for has got on, or something new was asked for
- `time`: what time it is, as the age of the data is not for the browser's clock to say
- `reload`: the page is to be opened again: another day has begun, or it took in events too slowly
- `away`, `back`: the numbers can't be read at the moment, and can again

Each `change` carries the version of the data as its id. A page whose version is another one, as it
lost its connection or was open in a hidden tab, gets all of its parts at once.
"""

import asyncio
import logging
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial

import anyio
from anyio import to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from kpi_pipeline.dashboard.site import Site
from kpi_pipeline.db.dashboard.changes import Change, ChangeFeed, Subject

# How long the changes of a burst are gathered.
GATHER_SECONDS = 0.15
# How often a page gets a sign of life, and what changes with time alone is rendered.
BEAT_SECONDS = 15.0
# How long a browser waits before it connects again.
_RETRY = "retry: 2000\n\n"
# Events that wait for a slow page. All pages of a topic share the text of each.
_MOST_WAITING = 16
# Of the pool's connections, some stay for pages that people open.
_RENDERED_AT_ONCE = 2

# How long a rendering may take that is under way at the end.
_STOP_SECONDS = 3.0

Changed = frozenset[str] | None
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LiveView:
    """What some pages show; `key` is the same for all that show the same.

    `render` returns the HTML of what changed: of these workspaces; of everything for None; of what
    time alone changes, such as an age, for an empty set. Nothing is sent if it returns no text.
    """

    key: Hashable
    render: Callable[[Changed], str]


class _Page:
    """The events that wait for one page; None is the end."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[str | None] = asyncio.Queue(_MOST_WAITING)

    def put(self, event: str) -> None:
        """Add an event. One too many, and all of them give way to a reload."""
        if self.waiting.qsize() < _MOST_WAITING - 1:
            self.waiting.put_nowait(event)
        else:
            self.end(_event("reload"))

    def end(self, *last: str) -> None:
        """End the stream, with these events in place of those that wait."""
        while not self.waiting.empty():
            self.waiting.get_nowait()
        for event in (*last, None):
            self.waiting.put_nowait(event)


@dataclass(eq=False)
class _Topic:
    view: LiveView
    pages: set[_Page] = field(default_factory=set)
    workspaces: set[str] = field(default_factory=set)
    # Something changed; or only time has passed.
    is_due: bool = False
    # Anything may have changed.
    all: bool = False
    # A page came after the last change was rendered, and may lack it.
    has_newcomer: bool = False
    is_away: bool = False

    def note(self, change: Change) -> None:
        """Have this change rendered next time."""
        if change.subject is Subject.ROWS:
            self.workspaces.add(change.workspace)
        else:
            self.all = True
        self.is_due = True

    def take(self) -> Changed:
        """What is to be rendered now."""
        everything = self.all or (self.has_newcomer and bool(self.workspaces))
        changed = None if everything else frozenset(self.workspaces)
        self.workspaces = set()
        self.is_due = self.all = False
        if everything:
            self.has_newcomer = False
        return changed

    def put(self, event: str) -> None:
        for page in self.pages:
            page.put(event)


class Live:
    """The open pages of one dashboard. All methods are called in its event loop."""

    def __init__(self, of: Site) -> None:
        self._site = of
        self._topics: dict[Hashable, _Topic] = {}
        self._woken = asyncio.Event()
        # Another process counts from another beginning.
        self._process = secrets.token_hex(4)
        self._changes = 0
        self._has_requests = False
        self._day: date | None = None
        self.is_running = False

    @property
    def version(self) -> str:
        """The version of the data: read it before the data."""
        return f"{self._process}-{self._changes}"

    @property
    def open_pages(self) -> int:
        """How many pages are open."""
        return sum(len(topic.pages) for topic in self._topics.values())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Bring changes to the pages while the block lasts."""
        loop = asyncio.get_running_loop()

        def report(change: Change) -> None:
            loop.call_soon_threadsafe(self.note, change)

        feed = ChangeFeed(self._site.engine, report, self._site.direct_address)
        threads = ThreadPoolExecutor(_RENDERED_AT_ONCE, "live")
        tasks = [asyncio.create_task(self._work(threads)), asyncio.create_task(self._beats())]
        self._day = await to_thread.run_sync(self._site.today)
        feed.start()
        self.is_running = True
        try:
            yield
        finally:
            self.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await to_thread.run_sync(feed.stop)
            # One may be reading the database, whose connections end after it.
            with anyio.move_on_after(_STOP_SECONDS):
                stop = partial(threads.shutdown, cancel_futures=True)
                await to_thread.run_sync(stop, abandon_on_cancel=True)

    def close(self) -> None:
        """End all streams: the server stops."""
        self.is_running = False
        self._end()

    def note(self, change: Change) -> None:
        """Have a change brought to the pages that show it."""
        if change.subject in (Subject.REQUESTS, Subject.EVERYTHING):
            self._has_requests = True
        if change.subject is not Subject.REQUESTS:
            self._changes += 1
            for topic in self._topics.values():
                topic.note(change)
        self._woken.set()

    async def subscribe(self, view: LiveView, seen: str = "") -> AsyncIterator[str]:
        """The events for a page that shows the version `seen` of the data."""
        page = _Page()
        topic = self._topics.setdefault(view.key, _Topic(view))
        topic.pages.add(page)
        topic.has_newcomer = True
        if seen != self.version:
            topic.all = topic.is_due = True
            self._woken.set()
        try:
            yield _RETRY + await to_thread.run_sync(self._time)
            while self.is_running and (event := await page.waiting.get()) is not None:
                yield event
        finally:
            topic.pages.discard(page)
            if not topic.pages:
                self._topics.pop(view.key, None)

    async def _work(self, threads: ThreadPoolExecutor) -> None:
        while True:
            await self._woken.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._woken.clear()
            due = [topic for topic in self._topics.values() if topic.is_due]
            # What changes meanwhile is gathered for the next time.
            await asyncio.gather(*(self._render(topic, threads) for topic in due))
            if self._has_requests:
                self._has_requests = False
                self._put(_event("requests"))

    async def _render(self, topic: _Topic, threads: ThreadPoolExecutor) -> None:
        version, changed = self.version, topic.take()
        try:
            text = await asyncio.get_running_loop().run_in_executor(
                threads, topic.view.render, changed
            )
        except Exception:  # noqa: BLE001 - the next render may succeed
            topic.all = True
            if not topic.is_away:
                _log.exception("The numbers of live pages could not be read.")
                topic.is_away = True
                topic.put(_event("away"))
            return
        if topic.is_away:
            topic.is_away = False
            topic.put(_event("back"))
        if text:
            topic.put(_event("change", text, version))

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            await self.beat()

    async def beat(self) -> None:
        """Tell all pages the time, and have rendered what changes with it."""
        today = await to_thread.run_sync(self._site.today)
        if self._day != today:
            self._end(_event("reload"))
        self._day = today
        self._put(await to_thread.run_sync(self._time))
        for topic in self._topics.values():
            topic.is_due = True
        self._woken.set()

    def _time(self) -> str:
        return _event("time", self._site.now().isoformat())

    def _put(self, event: str) -> None:
        for topic in self._topics.values():
            topic.put(event)

    def _end(self, *last: str) -> None:
        for topic in self._topics.values():
            for page in topic.pages:
                page.end(*last)


def hub(request: Request) -> Live:
    """The live pages of the dashboard that a request is for."""
    found: Live = request.app.state.live
    return found


def stream(request: Request, view: LiveView | None) -> Response:
    """The answer with a page's events; without a view, that the page is not live.

    The page's version of the data is in the query as `since`, or comes from the browser when it
    connects again.
    """
    if view is None:
        # A browser does not connect again after this status.
        return Response(status_code=204)
    live = hub(request)
    if not live.is_running:
        raise HTTPException(503, "The dashboard starts or stops.", {"Retry-After": "2"})
    seen = request.headers.get("last-event-id") or request.query_params.get("since", "")
    return _Stream(
        live.subscribe(view, seen),
        media_type="text/event-stream",
        # Proxies such as nginx would keep events back until there are many.
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


class _Stream(StreamingResponse):
    """Ends the subscription with the response, also of a visitor who left while one was sent.

    Else it would last until the garbage collector finds it, and be rendered for nobody.
    """

    async def stream_response(self, send: Send) -> None:
        """Send the events."""
        assert isinstance(self.body_iterator, AsyncGenerator)  # noqa: S101 - for the type checker
        async with aclosing(self.body_iterator):
            await super().stream_response(send)


def _event(name: str, data: str = "", version: str = "") -> str:
    lines = [f"event: {name}", *(f"data: {line}" for line in re.split(r"\r\n|\r|\n", data))]
    return "\n".join([*lines, *([f"id: {version}"] if version else ()), "", ""])
