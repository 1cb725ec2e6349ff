"""Dashboards that are served in a thread, and the events that reach their open pages."""

import asyncio
import queue
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import httpx
from sqlalchemy import Engine, text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from kpi_pipeline.dashboard.live import Changed, Live, LiveView, stream
from kpi_pipeline.web.serving import Server, configured
from kpi_pipeline_tests.cli.running import wait_until

# Longer than anything takes on a busy machine.
DEADLINE_SECONDS = 30.0


@dataclass(frozen=True)
class Event:
    """A server-sent event, and when it came, in seconds of time.monotonic()."""

    name: str
    data: str
    version: str
    at: float


class OpenPage:
    """The events of one stream, read in a thread of its own."""

    def __init__(self, url: str, **query: str) -> None:
        self._url, self._query = url, query
        self._events: queue.Queue[Event | None] = queue.Queue()
        self.status = 0
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def next(self, name: str) -> Event:
        """The next event of that name; others are skipped."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            assert event is not None, f"the stream ended before {name}"
            if event.name == name:
                return event

    def waiting(self) -> list[Event]:
        """The events that came and were not asked for, in their order."""
        found = []
        while not self._events.empty():
            if (event := self._events.get_nowait()) is not None:
                found.append(event)
        return found

    def ended(self) -> bool:
        """Wait until the server ends the stream."""
        self._thread.join(DEADLINE_SECONDS)
        return not self._thread.is_alive()

    def _read(self) -> None:
        with (
            httpx.Client(timeout=DEADLINE_SECONDS, trust_env=False) as http,
            http.stream("GET", self._url, params=self._query) as response,
        ):
            self.status = response.status_code
            for event in events(response.iter_lines()):
                self._events.put(event)
        self._events.put(None)


def events(lines: Iterator[str]) -> Iterator[Event]:
    """The events of a stream, of which each ends with an empty line."""
    fields: dict[str, list[str]] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields.setdefault(name, []).append(value)
        elif fields:
            name = fields.get("event", ["comment" if "" in fields else "retry"])[0]
            data, version = "\n".join(fields.get("data", [])), fields.get("id", [""])[0]
            yield Event(name, data, version, time.monotonic())
            fields = {}


@dataclass
class Renderer:
    """Renders a text about what changed, and remembers what it was asked for."""

    answers: Callable[[Changed], str] = lambda changed: (
        "everything" if changed is None else " ".join(sorted(changed))
    )
    asked: list[Changed] = field(default_factory=list)

    def __call__(self, changed: Changed) -> str:
        self.asked.append(changed)
        return self.answers(changed)


@dataclass
class ServedLive:
    """Live pages at `url`, in a thread. The query `view` names what a page shows."""

    url: str
    live: Live
    server: Server
    render: Renderer
    loop: asyncio.AbstractEventLoop

    def beat(self) -> None:
        """Have the next beat come at once."""
        asyncio.run_coroutine_threadsafe(self.live.beat(), self.loop).result(DEADLINE_SECONDS)

    def open(self, view: str = "overview") -> OpenPage:
        """A page that shows the newest version, as soon as it is subscribed."""
        page = OpenPage(f"{self.url}/live", view=view, since=self.live.version)
        page.next("retry")
        return page


@contextmanager
def served_live(live: Live, render: Renderer) -> Iterator[ServedLive]:
    """Serve nothing but live pages."""

    async def answer(request: Request) -> Response:
        return stream(request, LiveView(request.query_params["view"], render))

    loops = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        loops.append(asyncio.get_running_loop())
        async with live.running():
            yield

    app = Starlette(routes=[Route("/live", answer)], lifespan=lifespan)
    app.state.live = live
    with served(app, live.close) as (url, server):
        # The first change says that the feed listens.
        wait_until(lambda: live.version.endswith("-1"), "the feed")
        yield ServedLive(url, live, server, render, loops[0])


@contextmanager
def served(
    app: ASGIApp, on_stopping: Callable[[], None], port: int = 0
) -> Iterator[tuple[str, Server]]:
    """Serve an application as `kpi dashboard` does, in a thread; port 0 takes any free one."""
    started = threading.Event()
    server = Server(configured(app), started.set, on_stopping)
    with socket.create_server(("127.0.0.1", port), backlog=200) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert started.wait(DEADLINE_SECONDS)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", server
        finally:
            server.should_exit = True
            thread.join()


def end_connections(engine: Engine, application: str) -> int:
    """Have the server end the connections of that name; how many there were."""
    statement = text(
        "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = :application"
    )
    with engine.connect() as connection:
        return int(connection.scalar(statement, {"application": application}) or 0)
