"""Browsers and programs before a guarded page, over ASGI and without a network."""

from pathlib import Path
from typing import Any

import anyio
import httpx
from sqlalchemy import Engine
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from kpi_pipeline.db import web as stored
from kpi_pipeline.settings import Settings
from kpi_pipeline.web.guard import Guard
from kpi_pipeline.web.passwords import hash_password

OPERATOR, READER = "operators-password", "readers-pässword"
SHARED: dict[str, Any] = {"web_password": OPERATOR, "web_reader_password": READER}
# Of the user that tests add.
PASSWORD = "anns-own-password"
HTML = {"accept": "text/html"}
HERE = "http://localhost:3000"


async def whoami(scope: Scope, receive: Receive, send: Send) -> None:
    """A page that says who is asking, and what for."""
    visitor = scope.get("user")
    who = "nobody" if visitor is None else f"{visitor.name} the {visitor.role}"
    await PlainTextResponse(f"{who} at {scope['path']}")(scope, receive, send)


class Direct(httpx.BaseTransport):
    """Calls an application without a network, from the address `peer`."""

    def __init__(self, app: ASGIApp, peer: str = "127.0.0.1") -> None:
        self.app, self.peer = app, peer

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=(self.peer, 50_000))
            response = await transport.handle_async_request(request)
            content = await response.aread()
            return httpx.Response(response.status_code, headers=response.headers, content=content)

        return anyio.run(call)


def guard_of(engine: Engine, app: ASGIApp = whoami, **settings: Any) -> Guard:
    """The guard of Dagster's page under /kpi."""
    described = Settings.model_validate(
        {"state_dir": Path("/nowhere"), "web_path_prefix": "/kpi", **settings}
    )
    return Guard(app, described, described.dagster_page, engine, public=["/healthz"])


def client_of(app: ASGIApp, base: str = HERE, peer: str = "127.0.0.1") -> httpx.Client:
    """A browser without cookies."""
    return httpx.Client(transport=Direct(app, peer), base_url=base)


def guarded(engine: Engine, base: str = HERE, **settings: Any) -> httpx.Client:
    """A browser before a guard of its own: a process that was started now."""
    return client_of(guard_of(engine, **settings), base)


def log_in(
    browser: httpx.Client, password: str = OPERATOR, name: str = "", then: str = ""
) -> httpx.Response:
    """Send the form of the login."""
    return browser.post("/kpi/login", data={"name": name, "password": password, "then": then})


def cookie_of(browser: httpx.Client) -> dict[str, str]:
    """The header with the one cookie of a browser, as a thief would send it."""
    ((name, token),) = browser.cookies.items()
    return {"cookie": f"{name}={token}"}


def put_user(
    engine: Engine, name: str = "ann", role: str = "editor", password: str | None = PASSWORD
) -> None:
    """Add a user."""
    with engine.begin() as connection:
        hashed = None if password is None else hash_password(password)
        stored.add_user(connection, name, role, hashed)
