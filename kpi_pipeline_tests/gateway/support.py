"""A gateway as a real process on a database of its own, and what a test sees of both."""

import itertools
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import URL, Engine, text

from kpi_pipeline.db.engine import open_engine
from kpi_pipeline.db.vault import Vault, new_secret_key
from kpi_pipeline_tests.cli.running import address, calm_zone, days_ago
from kpi_pipeline_tests.db.stocked import imported, record, stock_facts
from kpi_pipeline_tests.domain.bodies import content
from kpi_pipeline_tests.webhooks.sending import Gateway, gateways

CLIENTS = 5
FIRST_ID = 101
_INSTANCES = "main https://mail.example, emea https://emea.example"
# No two events of a session tell of the same lead, unless a test wants it.
_leads = itertools.count(1)


def stocked_clients(engine: Engine) -> list[str]:
    """Clients of the workspaces 101 and on, with facts of every day up to yesterday."""
    vault = Vault(SecretStr(new_secret_key()))
    records = [record(FIRST_ID + n, f"Client {n}") for n in range(CLIENTS)]
    workspaces = imported(engine, vault, *records)
    with engine.begin() as connection:
        for workspace in workspaces:
            first = days_ago(1).replace(day=1) - timedelta(days=31)
            as_of = datetime.now(UTC) - timedelta(hours=1)
            stock_facts(connection, workspace, first, days_ago(1), as_of=as_of)
    return workspaces


def point_to(url: URL, patch: pytest.MonkeyPatch) -> None:
    """Have the gateways that are started from now on work on that database."""
    patch.setenv("KPI_ENV_FILE", "")
    patch.setenv("KPI_DATABASE_URL", address(url))
    patch.setenv("KPI_BISON_INSTANCES", _INSTANCES)
    patch.setenv("KPI_TIMEZONE", calm_zone().key)


@dataclass
class Running:
    """A gateway that runs, its database, and a client that talks to it.

    `other_secret` is that of the instance `emea`, whose workspaces nobody has imported.
    """

    gateway: Gateway
    engine: Engine
    http: httpx.Client
    workspaces: Sequence[str]
    other_secret: str

    def post(self, told: bytes | Mapping[str, Any], secret: str | None = None) -> httpx.Response:
        """Send a body as Email Bison does."""
        path = f"/webhooks/bison/{secret or self.gateway.secret}"
        return self.http.post(path, content=told if isinstance(told, bytes) else encoded(told))

    def stored(self, body: bytes) -> list[dict[str, Any]]:
        """The rows of the inbox that hold this very body."""
        return self.rows("SELECT * FROM webhook_events WHERE body = :body", body=body)

    def count(self) -> int:
        """How many events are stored."""
        (row,) = self.rows("SELECT count(*) AS n FROM webhook_events")
        return int(row["n"])

    def positive_today(self) -> dict[str, int]:
        """The positive replies of today, by client."""
        rows = self.rows(
            "SELECT workspace, positive_replies_today AS n FROM client_metrics "
            "WHERE metric_date = :today",
            today=today(),
        )
        return {row["workspace"]: row["n"] for row in rows}

    def rows(self, statement: str, **values: object) -> list[dict[str, Any]]:
        """What the database answers."""
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(statement), values).mappings()]

    def log(self) -> str:
        """All that the process printed."""
        assert self.gateway.child is not None
        return self.gateway.child.log.read_text(errors="replace")


@contextmanager
def running(url: URL, folder: Path) -> Iterator[Running]:
    """A gateway that is ready, on a database with the KPI tables and no client yet."""
    other = secrets.token_urlsafe(32)
    with pytest.MonkeyPatch.context() as patch:
        point_to(url, patch)
        patch.setenv("KPI_WEBHOOK_SECRET_EMEA", other)
        engine = open_engine(url)
        try:
            workspaces = stocked_clients(engine)
            with (
                gateways(folder, 1) as [gateway],
                httpx.Client(base_url=base(gateway), timeout=90, trust_env=False) as http,
            ):
                yield Running(gateway, engine, http, workspaces, other)
        finally:
            engine.dispose()


def base(gateway: Gateway) -> str:
    """The address of a gateway, without a path."""
    return f"http://127.0.0.1:{gateway.port}"


def today() -> date:
    """The business date of the gateways."""
    return days_ago(0)


def lead(workspace_id: int = FIRST_ID, **envelope: object) -> dict[str, Any]:
    """The event of a lead that no earlier event named."""
    data = {"lead": {"id": next(_leads)}, "campaign": {"id": 3}}
    return content("LEAD_INTERESTED", data, workspace_id, **envelope)


def encoded(told: Mapping[str, Any]) -> bytes:
    """As it comes over the wire."""
    return json.dumps(told).encode()
