"""Start and stop of the gateway."""

import secrets
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from sqlalchemy import URL, Engine, select, text

from kpi_pipeline.db.tables import client_metrics
from kpi_pipeline_tests.cli.running import days_ago, ended, kpi_in_a_process, wait_until
from kpi_pipeline_tests.gateway.support import (
    FIRST_ID,
    WORKSPACES,
    GatewayProcess,
    encoded,
    lead,
    point_to,
)

pytestmark = pytest.mark.server


@pytest.mark.long
def test_sigterm_under_load_loses_no_event_that_was_acknowledged(
    process: GatewayProcess, engine: Engine
) -> None:
    acknowledged: list[bytes] = []
    over = threading.Event()
    stopped = psutil.Process(process.child.pid)

    def send(_: int) -> None:
        with httpx.Client(timeout=60, trust_env=False) as http:
            while not over.is_set():
                body = encoded(lead(FIRST_ID))
                try:
                    answer = http.post(process.url, content=body)
                except httpx.TransportError:
                    return
                assert answer.status_code in (200, 503), answer.text
                if answer.status_code == 200:
                    acknowledged.append(body)

    with ThreadPoolExecutor(30) as threads:
        senders = [threads.submit(send, number) for number in range(30)]
        wait_until(lambda: len(acknowledged) > 100, "some load")
        stopped.send_signal(signal.SIGTERM)
        assert stopped.wait(20) == 0
        over.set()
        for sender in senders:
            sender.result()
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT body, status FROM webhook_events")).all()
        counted = connection.scalar(
            select(client_metrics.c.positive_replies_today).where(
                client_metrics.c.workspace == WORKSPACES[0],
                client_metrics.c.metric_date == days_ago(0),
            )
        )
    assert {row.status for row in stored} == {"applied"}
    assert set(acknowledged) <= {bytes(row.body) for row in stored}
    assert counted == len(stored)
    assert "Traceback" not in process.log()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_it_prints_its_url_without_the_secret_and_exits_with_code_0(
    database: URL, stop: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to(database, monkeypatch)
    monkeypatch.setenv("KPI_WEBHOOK_SECRET_MAIN", secrets.token_urlsafe(32))
    with kpi_in_a_process("gateway", "--port", "0") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Webhooks are received at http://127.0.0.1:")
        assert line.endswith("/webhooks/bison/…\n")
        port = int(line.split(":")[2].split("/")[0])
        assert httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=20).status_code == 200
        process.send_signal(stop)
        result = ended(process)
    assert (result.code, result.out, result.err) == (0, "", "")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


@pytest.mark.long
def test_a_body_that_never_ends_does_not_delay_the_stop(process: GatewayProcess) -> None:
    head = f"POST /webhooks/bison/{process.secret} HTTP/1.1\r\nHost: x\r\n"
    with socket.create_connection(("127.0.0.1", process.port), timeout=20) as opened:
        opened.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        # Behind it, so it was seen by now.
        httpx.post(process.url, content=encoded(lead()), timeout=90)
        stopped = psutil.Process(process.child.pid)
        stopped.send_signal(signal.SIGTERM)
        # Sooner than its body would have been given up.
        assert opened.recv(1_000).startswith(b"HTTP/1.1 503 ")
        assert stopped.wait(20) == 0
    assert "Traceback" not in process.log()
