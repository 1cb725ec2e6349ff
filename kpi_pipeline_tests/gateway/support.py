"""Gateways, in a thread of the test or as a process, on a database with five clients."""

import itertools
import json
import os
import secrets
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from pydantic import SecretStr
from sqlalchemy import URL, Engine, text
from starlette.types import ASGIApp

from kpi_pipeline.db.registry.vault import Vault, new_secret_key
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.gateway.app import create_app
from kpi_pipeline.inbox.ingest import Inbox
from kpi_pipeline.services.processes import Child, answers, free_port
from kpi_pipeline.web.serving import configured
from kpi_pipeline_tests.cli.running import address, calm_zone, days_ago, wait_until
from kpi_pipeline_tests.db.stocked import imported, record, stock_facts
from kpi_pipeline_tests.domain.bodies import content

FIRST_ID = 101
WORKSPACES = [f"client-{number}" for number in range(5)]
# No two events of a session name the same lead, unless a test wants it.
_leads = itertools.count(1)


def lead(workspace_id: int = FIRST_ID, **envelope: object) -> dict[str, Any]:
    """The event of a lead that no earlier event named."""
    data = {"lead": {"id": next(_leads)}, "campaign": {"id": 3}}
    return content("LEAD_INTERESTED", data, workspace_id, **envelope)


def encoded(event: Mapping[str, Any]) -> bytes:
    """The event as it is sent."""
    return json.dumps(event).encode()


def stock_clients(engine: Engine) -> None:
    """Import clients of the workspaces 101 and on, with facts of every day up to yesterday."""
    records = [record(FIRST_ID + n, f"Client {n}") for n in range(len(WORKSPACES))]
    assert imported(engine, Vault(SecretStr(new_secret_key())), *records) == WORKSPACES
    first = days_ago(1).replace(day=1) - timedelta(days=31)
    as_of = datetime.now(UTC) - timedelta(hours=1)
    with engine.begin() as connection:
        for workspace in WORKSPACES:
            stock_facts(connection, workspace, first, days_ago(1), as_of=as_of)


@dataclass
class Gateway:
    """A gateway in a thread, its secrets by instance, and a client that talks to it."""

    engine: Engine
    http: httpx.Client
    secrets: Mapping[str, str]

    @property
    def path(self) -> str:
        """Where the webhooks of the instance `main` go."""
        return f"/webhooks/bison/{self.secrets['main']}"

    def post(self, event: bytes | Mapping[str, Any], secret: str | None = None) -> httpx.Response:
        """Send an event as Email Bison does."""
        path = f"/webhooks/bison/{secret}" if secret else self.path
        return self.http.post(path, content=event if isinstance(event, bytes) else encoded(event))

    def rows(self, statement: str, **values: object) -> list[dict[str, Any]]:
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(statement), values).mappings()]

    def count(self) -> int:
        """How many events are stored."""
        return len(self.rows("SELECT id FROM webhook_events"))


@contextmanager
def in_thread(database: URL, *, realtime: bool = True) -> Iterator[Gateway]:
    """A gateway of two instances, `main` with the clients and `emea` without any."""
    with ExitStack() as stack:
        engine = open_engine(database)
        stack.callback(engine.dispose)
        stock_clients(engine)
        inbox = Inbox(engine, calm_zone(), lambda: datetime.now(UTC), {}, realtime=realtime)
        made = {name: secrets.token_urlsafe(32) for name in ("main", "emea")}
        app = create_app(inbox, {name: SecretStr(secret) for name, secret in made.items()})
        yield Gateway(engine, stack.enter_context(serving(app)), made)


@contextmanager
def serving(app: ASGIApp, unlimited: Sequence[str] = ("127.0.0.1",)) -> Iterator[httpx.Client]:
    """Serve a gateway as its command does, in a thread; a client that talks to it."""
    server = uvicorn.Server(configured(app, unlimited=unlimited))
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_until(lambda: server.started, "the start of the gateway")
            base = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with httpx.Client(base_url=base, timeout=90, trust_env=False) as http:
                yield http
        finally:
            server.should_exit = True
            thread.join()


@dataclass
class GatewayProcess:
    """`kpi gateway` on a port of its own, which may be killed and started again."""

    folder: Path
    secret: str = field(default_factory=secrets.token_urlsafe)
    port: int = field(default_factory=free_port)
    child: Child = field(init=False)

    @property
    def base(self) -> str:
        """Its address, without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where Email Bison's webhooks go."""
        return f"{self.base}/webhooks/bison/{self.secret}"

    def start(self) -> None:
        command = [sys.executable, "-m", "kpi_pipeline.cli.main", "gateway"]
        environment = dict(os.environ) | {"KPI_WEBHOOK_SECRET_MAIN": self.secret}
        log = self.folder / f"gateway-{self.port}.log"
        self.child = Child("The gateway", [*command, "--port", str(self.port)], environment, log)
        self.child.start()

    def wait_until_ready(self) -> None:
        self.child.wait_until(lambda: answers(f"{self.base}/readyz"), seconds=60)

    def kill(self) -> None:
        """End it as a crash does."""
        os.kill(self.child.pid, 9)
        self.child.stop()

    def log(self) -> str:
        """The output of the process."""
        return self.child.log.read_text(errors="replace")


def point_to(database: URL, patch: pytest.MonkeyPatch) -> None:
    """Have the gateways that are started from now on work on that database."""
    patch.setenv("KPI_DATABASE_URL", address(database))
    patch.setenv("KPI_BISON_INSTANCES", "main https://mail.example, emea https://emea.example")
    patch.setenv("KPI_TIMEZONE", calm_zone().key)


@contextmanager
def gateway_processes(folder: Path, count: int) -> Iterator[list[GatewayProcess]]:
    """Gateways of one instance `main`, ready; the environment names their database."""
    secret = secrets.token_urlsafe(32)
    gateways = [GatewayProcess(folder, secret) for _ in range(count)]
    with ExitStack() as stack:
        for gateway in gateways:
            gateway.start()
            stack.callback(lambda it: it.child.stop(), gateway)
        for gateway in gateways:
            gateway.wait_until_ready()
        yield gateways
