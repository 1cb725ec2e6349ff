"""A sandbox in the tests' own process: an HTTP server whose application each test replaces.

Calls take a shortcut past the network, which halves their cost. Faults that break or delay a
connection need the network, so calls go over it while one is in force, and where a test asks.
"""

import asyncio
import csv
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, ClassVar, Literal, TypeVar

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from bison_sandbox import SandboxOptions, create_app
from bison_sandbox.faults import Reset, Slow, Stall
from bison_sandbox.state import Sandbox
from kpi_pipeline_tests.bison_sandbox.receiver import wait_until

TODAY = date(2026, 3, 18)
AFTERNOON = "2026-03-18T15:00:00-05:00"
WORKSPACES = "/api/workspaces/v1.1"
T = TypeVar("T")
# Loading the certificates of the world's authorities takes 50 ms for each client.
_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_CALLER = ("127.0.0.1", 40_000)


def options(**changed: Any) -> SandboxOptions:
    return replace(SandboxOptions(calls_per_second=0, latency=0, today=TODAY), **changed)


class Stage:
    """An HTTP server that keeps running while the sandbox behind it is replaced."""

    _running: ClassVar[dict[str, "Stage"]] = {}

    def __init__(self) -> None:
        self.url = ""
        self.loop: asyncio.AbstractEventLoop | None = None
        self.put(create_app(options()))

    @classmethod
    def at(cls, url: httpx.URL) -> "Stage | None":
        """The running stage of this address."""
        return cls._running.get(f"http://{url.netloc.decode()}")

    @contextmanager
    def running_at(self, url: str) -> Iterator[None]:
        self.url = url
        self._running[url] = self
        try:
            yield
        finally:
            del self._running[url]

    def put(self, app: Starlette) -> None:
        self.app: ASGIApp = app
        self._sandbox: Sandbox = app.state.sandbox

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)

    @property
    def needs_network(self) -> bool:
        """Whether a fault of the connection is in force."""
        return any(isinstance(it.fault, Slow | Stall | Reset) for it in self._sandbox.faults.all())

    @contextmanager
    def lifespan_of(self, app: Starlette) -> Iterator[None]:
        """An application's lifespan; the server outlives each of them."""
        lifespan = app.router.lifespan_context(app)
        self.run(lifespan.__aenter__)
        try:
            yield
        finally:
            self.run(lambda: lifespan.__aexit__(None, None, None))

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` in the server's event loop."""

        async def run() -> T:
            return await work()

        assert self.loop is not None, "the server does not run"
        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(timeout=60)


class AsyncShortcut(httpx.AsyncBaseTransport):
    """Calls the stage at a request's address in the caller's own event loop."""

    def __init__(self) -> None:
        self._network = httpx.AsyncHTTPTransport(verify=_NO_CERTIFICATES)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        stage = Stage.at(request.url)
        if stage is None or stage.needs_network:
            return await self._network.handle_async_request(request)
        return await httpx.ASGITransport(stage, client=_CALLER).handle_async_request(request)

    async def aclose(self) -> None:
        await self._network.aclose()


class Shortcut(httpx.BaseTransport):
    """Calls the stage at a request's address in the stage's event loop."""

    def __init__(self) -> None:
        self._network = httpx.HTTPTransport(verify=_NO_CERTIFICATES)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        stage = Stage.at(request.url)
        if stage is None or stage.needs_network:
            return self._network.handle_request(request)
        transport = httpx.ASGITransport(stage, client=_CALLER)

        async def call() -> httpx.Response:
            response = await transport.handle_async_request(request)
            content = await response.aread()
            return httpx.Response(response.status_code, headers=response.headers, content=content)

        return stage.run(call)

    def close(self) -> None:
        self._network.close()


class _Server(uvicorn.Server):
    """A server that gives its event loop to the stage."""

    def __init__(self, config: uvicorn.Config, stage: Stage) -> None:
        super().__init__(config)
        self._stage = stage

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._stage.loop = asyncio.get_running_loop()
        await super().startup(sockets)


@contextmanager
def on_stage(http: Literal["auto", "h11", "httptools"] = "auto") -> Iterator[Stage]:
    """A stage on a free port; `http` is which of uvicorn's readers of HTTP serves it."""
    stage = Stage()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        # A call that a fault holds must not keep the server from stopping.
        config = uvicorn.Config(
            stage,
            http=http,
            lifespan="off",
            ws="none",
            log_level="error",
            timeout_graceful_shutdown=1,
        )
        server = _Server(config, stage)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            _wait_until_started(server)
            with stage.running_at(url):
                yield stage
        finally:
            server.should_exit = True
            thread.join()


def _wait_until_started(server: uvicorn.Server) -> None:
    deadline = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.005)


@dataclass
class Bison:
    """A sandbox as a test sees it: through its API and its control endpoints alone."""

    http: httpx.Client
    master_key: str

    def call(
        self, method: str, path: str, *, key: str | None = None, **request: Any
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key or self.master_key}"}
        return self.http.request(method, path, headers=headers, **request)

    def get(self, path: str, *, key: str | None = None, **params: Any) -> httpx.Response:
        return self.call("GET", path, key=key, params=params)

    def data(self, path: str, *, key: str | None = None, **params: Any) -> Any:
        response = self.get(path, key=key, **params)
        assert response.status_code == 200, response.text
        return response.json()["data"]

    def switch(self, workspace_id: int) -> httpx.Response:
        body = {"team_id": workspace_id}
        return self.call("POST", f"{WORKSPACES}/switch-workspace", json=body)

    def freeze(self, instant: str | None) -> None:
        assert self.http.post("/sandbox/clock", json={"now": instant}).status_code == 200

    def variants(self, **changed: object) -> None:
        answer = self.http.patch("/sandbox/variants", json=changed)
        assert answer.status_code == 200, answer.text

    def fault(self, kind: str, /, **options: object) -> int:
        answer = self.http.post("/sandbox/faults", json={"kind": kind, **options})
        assert answer.status_code == 201, answer.text
        fault_id: int = answer.json()["id"]
        return fault_id

    def mark(
        self, workspace: Mapping[str, str], leads: int = 1, *, deliver: bool = True
    ) -> list[dict[str, Any]]:
        """Mark leads of a client, a row of the CSV; return the bodies of the events."""
        body = {"workspace_id": int(workspace["bison_workspace_id"]), "leads": leads}
        answer = self.http.post("/sandbox/mark-interested", json=body | {"deliver": deliver})
        assert answer.status_code == 201, answer.text
        events: list[dict[str, Any]] = answer.json()["events"]
        return events

    def hook(self, workspace: Mapping[str, str], url: str, *events: str) -> None:
        """Register a webhook of a client, a row of the CSV with its key."""
        body = {"name": "kpi", "url": url, "events": events or ["lead_interested"]}
        made = self.call("POST", "/api/webhook-url", key=workspace["api_key"], json=body)
        assert made.status_code == 201, made.text

    def parent_hook(self, url: str) -> dict[str, Any]:
        made = self.http.post("/sandbox/parent-hook", json={"url": url})
        assert made.status_code == 201, made.text
        shown: dict[str, Any] = made.json()
        return shown

    def deliveries(self) -> dict[str, Any]:
        shown: dict[str, Any] = self.http.get("/sandbox/deliveries").json()
        return shown

    def pending_deliveries(self) -> int:
        """How many are pending, without the log of all, which takes long to show."""
        return int(self.http.get("/sandbox/deliveries", params={"last": 0}).json()["pending"])

    def delivered(self) -> list[dict[str, Any]]:
        """The log of the deliveries, once none is pending any more."""
        wait_until(lambda: self.pending_deliveries() == 0, self.deliveries)
        rows: list[dict[str, Any]] = self.deliveries()["deliveries"]
        return rows

    def struck(self) -> list[int]:
        """How many calls each fault has struck, in order of creation."""
        faults = self.http.get("/sandbox/faults").json()["faults"]
        return [fault["struck"] for fault in faults]

    def clients(self) -> list[dict[str, str]]:
        text = self.http.get("/sandbox/clients.csv").text
        return list(csv.DictReader(text.splitlines()))

    def with_key(self) -> list[dict[str, str]]:
        return [row for row in self.clients() if row["api_key"]]

    def series(self, first: date, last: date, *, key: str | None = None) -> dict[str, list[int]]:
        path = f"{WORKSPACES}/line-area-chart-stats"
        lines = self.data(path, key=key, start_date=str(first), end_date=str(last))
        days = [str(first + timedelta(days=n)) for n in range((last - first).days + 1)]
        for line in lines:
            assert [day for day, _ in line["dates"]] == days
        return {line["label"]: [count for _, count in line["dates"]] for line in lines}

    def calls(self) -> Sequence[dict[str, Any]]:
        calls: Sequence[dict[str, Any]] = self.http.get("/sandbox/calls").json()["calls"]
        return calls


@contextmanager
def bison_on(stage: Stage, sandbox: SandboxOptions, *, network: bool = False) -> Iterator[Bison]:
    """A fresh sandbox, frozen at AFTERNOON; with `network`, each call goes over it."""
    app = create_app(sandbox)
    stage.put(app)
    transport = httpx.HTTPTransport(verify=_NO_CERTIFICATES) if network else Shortcut()
    with (
        stage.lifespan_of(app),
        httpx.Client(base_url=stage.url, timeout=60, transport=transport) as http,
    ):
        bison = Bison(http, http.get("/sandbox/setup").json()["master_key"])
        bison.freeze(AFTERNOON)
        yield bison
