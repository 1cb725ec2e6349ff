"""A gateway in the test's own process, into which a test may reach."""

import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import uvicorn
from pydantic import SecretStr
from sqlalchemy import Engine, text
from starlette.applications import Starlette

from kpi_pipeline.gateway.app import create_app
from kpi_pipeline.gateway.server import configured
from kpi_pipeline.inbox.ingest import Inbox
from kpi_pipeline_tests.cli.running import calm_zone, wait_until
from kpi_pipeline_tests.gateway.support import stocked_clients


@dataclass
class Gateway:
    """It listens on `port`; its webhooks' address ends in `path`, with the secret in it."""

    engine: Engine
    port: int
    secret: str
    http: httpx.Client

    @property
    def path(self) -> str:
        """Where its webhooks go."""
        return f"/webhooks/bison/{self.secret}"

    def open(self, beginning: str) -> socket.socket:
        """A connection on which so much was sent."""
        opened = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        opened.sendall(beginning.encode())
        return opened

    def post(self, body: bytes) -> httpx.Response:
        """An honest delivery."""
        return self.http.post(self.path, content=body)

    def stored(self) -> list[tuple[bytes, str]]:
        """Body and status of each event, in the order in which they came in."""
        with self.engine.connect() as connection:
            rows = connection.execute(text("SELECT body, status FROM webhook_events ORDER BY id"))
            return [(bytes(row.body), row.status) for row in rows]


@contextmanager
def in_process(engine: Engine, *, realtime: bool = True) -> Iterator[Gateway]:
    """A gateway of the instance `main`, on a database into which its clients are imported."""
    stocked_clients(engine)
    inbox = Inbox(engine, calm_zone(), lambda: datetime.now(UTC), {}, realtime=realtime)
    secret = secrets.token_urlsafe(32)
    with serving(create_app(inbox, {"main": SecretStr(secret)})) as http:
        port = http.base_url.port
        assert port is not None
        yield Gateway(engine, port, secret, http)


@contextmanager
def serving(app: Starlette) -> Iterator[httpx.Client]:
    """Serve a gateway as its command does, in a thread; a client that talks to it."""
    server = uvicorn.Server(configured(app))
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_until(lambda: server.started, "the start of the gateway")
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with httpx.Client(base_url=address, timeout=60, trust_env=False) as http:
                yield http
        finally:
            server.should_exit = True
            thread.join()
