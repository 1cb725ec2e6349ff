"""The gateway survives an outage of PostgreSQL, and acknowledges nothing that is not stored."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from kpi_pipeline.db.migrate import upgrade
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.services.processes import answers
from kpi_pipeline_tests.cli.running import wait_until
from kpi_pipeline_tests.gateway.support import (
    GatewayProcess,
    encoded,
    lead,
    point_to,
    stock_clients,
)
from kpi_pipeline_tests.restartable import RestartableServer, restartable_server

pytestmark = pytest.mark.server


@pytest.fixture
def server() -> Iterator[RestartableServer]:
    with restartable_server() as server:
        yield server


@pytest.fixture
def gateway(
    server: RestartableServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[GatewayProcess]:
    """A gateway that is started while the database is down."""
    point_to(server.url, monkeypatch)
    server.stop()
    gateway = GatewayProcess(tmp_path)
    gateway.start()
    try:
        wait_until(lambda: answers(f"{gateway.base}/healthz"), "the start of the gateway")
        yield gateway
    finally:
        gateway.child.stop()


def post(gateway: GatewayProcess, body: bytes) -> httpx.Response:
    return httpx.post(gateway.url, content=body, timeout=30)


def require_unavailable(gateway: GatewayProcess, reason: str) -> None:
    """A delivery is answered 503, for a reason that reveals nothing of the server."""
    answer = post(gateway, encoded(lead()))
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json() == {
        "error": "Try again later: the database cannot be reached, or is not upgraded."
    }
    ready = httpx.get(f"{gateway.base}/readyz", timeout=30)
    assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
    assert reason in ready.json()["error"]
    assert answers(f"{gateway.base}/healthz")


def bodies(server: RestartableServer) -> list[bytes]:
    engine = open_engine(server.url)
    try:
        with engine.connect() as connection:
            return list(connection.scalars(text("SELECT body FROM webhook_events ORDER BY id")))
    finally:
        engine.dispose()


@pytest.mark.long
def test_nothing_is_acknowledged_until_the_database_is_up_and_current(
    gateway: GatewayProcess, server: RestartableServer
) -> None:
    # It started without a database.
    require_unavailable(gateway, "cannot be reached")
    server.start()
    # One without tables is none yet.
    require_unavailable(gateway, "Run `kpi db upgrade`")
    engine = open_engine(server.url)
    upgrade(engine)
    stock_clients(engine)
    engine.dispose()
    first, second = encoded(lead()), encoded(lead())
    assert post(gateway, first).json()["status"] == "applied"
    assert answers(f"{gateway.base}/readyz")

    server.stop()
    require_unavailable(gateway, "cannot be reached")
    server.start()

    assert post(gateway, second).json()["status"] == "applied"
    assert bodies(server) == [first, second]
    log = gateway.log()
    assert "the database cannot be reached" in log
    assert gateway.secret not in log
    assert "Traceback" not in log
