"""A sandbox in the tests' own process: an HTTP server whose application each test replaces.

Calls take a shortcut past the network, which halves their cost. Faults that break or delay a
connection need the network, so calls go over it while one is in force, and where a test asks.
"""

import csv
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, Literal

import httpx
import uvicorn
from anyio.from_thread import BlockingPortal, start_blocking_portal
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from bison_sandbox import SandboxOptions, create_app
from bison_sandbox.faults import Reset, Slow, Stall
from bison_sandbox.state import Sandbox
from kpi_pipeline_tests.bison_sandbox.receiver import wait_until

TODAY = date(2026, 3, 18)
AFTERNOON = "2026-03-18T15:00:00-05:00"
WORKSPACES = "/api/workspaces/v1.1"
# Loading the certificates of the world's authorities takes 50 ms for each client.
_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_CALLER = ("127.0.0.1", 40_000)


def options(**changed: Any) -> SandboxOptions:
    return replace(SandboxOptions(calls_per_second=0, latency=0, today=TODAY), **changed)


class Stage:
    """An HTTP server that keeps running while the sandbox behind it is replaced."""

    url: str
    portal: BlockingPortal
    """Runs work in the server's event loop."""

    def __init__(self) -> None:
        self.put(create_app(options()))

    def put(self, app: Starlette) -> None:
        self.app: ASGIApp = app
        self.sandbox: Sandbox = app.state.sandbox

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)

    async def answer(self, request: httpx.Request) -> httpx.Response:
        """The answer without the network, in the event loop that runs this."""
        return await httpx.ASGITransport(self, client=_CALLER).handle_async_request(request)


_STAGES: dict[str, Stage] = {}


def _stage_at(url: httpx.URL) -> Stage | None:
    """The running stage of this address, unless a fault of its connections is in force."""
    stage = _STAGES.get(f"http://{url.netloc.decode()}")
    if stage and any(
        isinstance(it.fault, Slow | Stall | Reset) for it in stage.sandbox.faults.all()
    ):
        return None
    return stage


class AsyncShortcut(httpx.AsyncHTTPTransport):
    """Calls a stage in the caller's own event loop, and anything else over the network."""

    def __init__(self) -> None:
        super().__init__(verify=_NO_CERTIFICATES)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if stage := _stage_at(request.url):
            return await stage.answer(request)
        return await super().handle_async_request(request)


class Shortcut(httpx.HTTPTransport):
    """Calls a stage in the stage's event loop, and anything else over the network."""

    def __init__(self) -> None:
        super().__init__(verify=_NO_CERTIFICATES)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        stage = _stage_at(request.url)
        if stage is None:
            return super().handle_request(request)

        async def call() -> httpx.Response:
            response = await stage.answer(request)
            content = await response.aread()
            return httpx.Response(response.status_code, headers=response.headers, content=content)

        return stage.portal.start_task_soon(call).result(timeout=60)


@contextmanager
def on_stage(http: Literal["auto", "h11", "httptools"] = "auto") -> Iterator[Stage]:
    """A stage on a free port; `http` is which of uvicorn's readers of HTTP serves it."""
    stage = Stage()
    config = uvicorn.Config(
        stage,
        http=http,
        lifespan="off",
        ws="none",
        log_level="error",
        # A call that a fault holds must not keep the server from stopping.
        timeout_graceful_shutdown=1,
    )
    loop = {"loop_factory": config.get_loop_factory()}
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        start_blocking_portal(backend_options=loop) as stage.portal,
    ):
        stage.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        _STAGES[stage.url] = stage
        server = uvicorn.Server(config)
        served = stage.portal.start_task_soon(server.serve, [listener])
        try:
            wait_until(lambda: server.started, lambda: "the server did not start")
            yield stage
        finally:
            server.should_exit = True
            served.result()
            del _STAGES[stage.url]


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

    def series(self, first: date, last: date, *, key: str | None = None) -> dict[str, list[int]]:
        path = f"{WORKSPACES}/line-area-chart-stats"
        lines = self.data(path, key=key, start_date=str(first), end_date=str(last))
        days = [str(first + timedelta(days=n)) for n in range((last - first).days + 1)]
        for line in lines:
            assert [day for day, _ in line["dates"]] == days
        return {line["label"]: [count for _, count in line["dates"]] for line in lines}

    def hook(self, workspace: Mapping[str, str], url: str, *events: str) -> None:
        """Register a webhook of a client, a row of the CSV with its key."""
        body = {"name": "kpi", "url": url, "events": events or ["lead_interested"]}
        made = self.call("POST", "/api/webhook-url", key=workspace["api_key"], json=body)
        assert made.status_code == 201, made.text

    def control(self, method: str, endpoint: str, body: object = None, **params: Any) -> Any:
        """The answer of a control endpoint."""
        answer = self.http.request(method, f"/sandbox/{endpoint}", json=body, params=params)
        assert answer.is_success, answer.text
        return answer.json()

    def freeze(self, instant: str | None) -> None:
        self.control("POST", "clock", {"now": instant})

    def variants(self, **changed: object) -> None:
        self.control("PATCH", "variants", changed)

    def fault(self, kind: str, /, **options: object) -> int:
        return int(self.control("POST", "faults", {"kind": kind, **options})["id"])

    def struck(self) -> list[int]:
        """How many calls each fault has struck, in order of creation."""
        return [fault["struck"] for fault in self.control("GET", "faults")["faults"]]

    def mark(
        self, workspace: Mapping[str, str], leads: int = 1, *, deliver: bool = True
    ) -> list[dict[str, Any]]:
        """Mark leads of a client, a row of the CSV; return the bodies of the events."""
        body = {"workspace_id": int(workspace["bison_workspace_id"]), "leads": leads}
        return list(self.control("POST", "mark-interested", body | {"deliver": deliver})["events"])

    def parent_hook(self, url: str) -> Any:
        return self.control("POST", "parent-hook", {"url": url})

    def deliveries(self) -> Any:
        return self.control("GET", "deliveries")

    def pending_deliveries(self) -> int:
        """How many are pending, without the log of all, which takes long to show."""
        return int(self.control("GET", "deliveries", last=0)["pending"])

    def delivered(self) -> list[dict[str, Any]]:
        """The log of the deliveries, once none is pending any more."""
        wait_until(lambda: self.pending_deliveries() == 0, self.deliveries)
        return list(self.deliveries()["deliveries"])

    def calls(self) -> list[dict[str, Any]]:
        return list(self.control("GET", "calls")["calls"])

    def clients(self) -> list[dict[str, str]]:
        return list(csv.DictReader(self.http.get("/sandbox/clients.csv").text.splitlines()))

    def with_key(self) -> list[dict[str, str]]:
        return [row for row in self.clients() if row["api_key"]]


@contextmanager
def bison_on(stage: Stage, sandbox: SandboxOptions, *, network: bool = False) -> Iterator[Bison]:
    """A fresh sandbox, frozen at AFTERNOON; with `network`, each call goes over it."""
    app = create_app(sandbox)
    stage.put(app)
    transport = httpx.HTTPTransport(verify=_NO_CERTIFICATES) if network else Shortcut()
    with (
        stage.portal.wrap_async_context_manager(app.router.lifespan_context(app)),
        httpx.Client(base_url=stage.url, timeout=60, transport=transport) as http,
    ):
        bison = Bison(http, http.get("/sandbox/setup").json()["master_key"])
        bison.freeze(AFTERNOON)
        yield bison
