"""`kpi demo` as a newcomer runs it, and `kpi up` as an operator starts and stops it."""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from kpi_pipeline.db.server.embedded import embedded_server
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.instances import format_instances
from kpi_pipeline_tests.bison_sandbox.running import Bison
from kpi_pipeline_tests.conftest import instance_of

pytestmark = pytest.mark.long

KPI = [sys.executable, "-m", "kpi_pipeline.cli.main"]


# An installed wheel runs a shorter demo in every `make test-long`.
@pytest.mark.weekly
def test_the_demo_fills_35_days_and_today_of_26_clients_receives_leads_and_leaves_no_process(
    state: Path,
) -> None:
    environment = dict(os.environ) | {"KPI_STATE_DIR": str(state), "KPI_ENV_FILE": ""}
    # The demo must not touch what is configured: no server answers there.
    environment["KPI_DATABASE_URL"] = "postgresql://nobody:wrong-password@127.0.0.1:1/none"
    real = secrets.token_urlsafe(32)
    environment |= {"KPI_WEBHOOK_SECRET_MAIN": real, "KPI_GATEWAY_PORT": "0"}
    environment["KPI_GATEWAY_URL"] = "https://kpi.agency.example"

    done = subprocess.run(
        [*KPI, "demo", "--once", "--port", "0"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "26 of 26 clients ok" in done.stdout
    assert "23 of 26 with their own key" in done.stdout
    with embedded_server(state / "demo") as url:
        engine = open_engine(url)
        with engine.connect() as connection:
            counts = connection.execute(
                text("SELECT metric_date, count(*) FROM client_metrics GROUP BY 1 ORDER BY 1")
            ).all()
            events = connection.execute(
                text("SELECT source, status, deliveries FROM webhook_events")
            ).all()
        engine.dispose()
        days = [day for day, _ in counts]
        assert days == [days[-1] - timedelta(days=n) for n in range(35, -1, -1)]
        assert {count for _, count in counts} == {26}
        # Leads that turned interested meanwhile came in by two hooks and the feed, and count once.
        assert {event.status for event in events} == {"applied"}
        assert {"webhook"} <= {event.source for event in events} <= {"webhook", "feed"}
        assert max(event.deliveries for event in events) > 1
        kept = (state / "demo/demo.env").read_text()
        assert "KPI_WEBHOOK_SECRET_MAIN=" in kept
        assert "KPI_GATEWAY_URL=http://127.0.0.1:" in kept
        assert real not in kept
        assert _printed(environment, days[-2]) == 26


def _printed(environment: dict[str, str], day: date) -> int:
    """How many rows with numbers `kpi --demo metrics` prints of one day."""
    output = subprocess.run(
        [*KPI, "--demo", "metrics", "--date", str(day), "--format", "json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    return sum(row["positive_replies_mtd"] is not None for row in json.loads(output))


@pytest.mark.parametrize(
    ("stop", "secret"),
    [
        pytest.param(signal.SIGINT, secrets.token_urlsafe(32), id="Ctrl-C"),
        pytest.param(signal.SIGTERM, "", id="SIGTERM, without webhooks"),
    ],
)
@pytest.mark.server
def test_up_serves_page_and_webhooks_until_it_is_stopped_and_leaves_no_process(
    state: Path, bison: Bison, stop: signal.Signals, secret: str
) -> None:
    environment = dict(os.environ) | {
        "KPI_STATE_DIR": str(state),
        "KPI_BISON_INSTANCES": format_instances([instance_of(bison)]),
        "KPI_WEB_PORT": "0",
        "KPI_GATEWAY_PORT": "0",
        "KPI_WEBHOOK_SECRET_MAIN": secret,
    }
    output = state.parent / "output"
    with output.open("w") as file:
        process = subprocess.Popen(
            [*KPI, "up"],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        url = _address(process, output)
        assert httpx.get(f"{url}/server_info", timeout=30).json()["dagster_version"]
        shown = output.read_text()
        if secret:
            found = re.search(r"Webhooks are received at (http://\S+)/webhooks/bison/…", shown)
            assert found, shown
            assert httpx.get(f"{found[1]}/readyz", timeout=30).status_code == 200
            answer = httpx.post(f"{found[1]}/webhooks/bison/{secret}", content=b"{}", timeout=30)
            assert answer.json()["status"] == "invalid"
            assert secret not in shown
        else:
            assert "No webhooks are received from main: to receive them, set KPI_WEBHOOK_S" in shown
        process.send_signal(stop)
        assert process.wait(timeout=180) == 0, output.read_text()
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in output.read_text()


def _address(process: subprocess.Popen[bytes], output: Path) -> str:
    deadline = time.monotonic() + 300
    while not (found := re.search(r"Dagster runs at (\S+),", output.read_text())):
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.2)
    return found[1]
