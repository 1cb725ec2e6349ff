"""`kpi up`, as an operator starts and stops it."""

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from kpi_pipeline.instances import format_instances
from kpi_pipeline_tests.bison_sandbox.running import Bison
from kpi_pipeline_tests.conftest import instance_of

pytestmark = pytest.mark.server


@pytest.mark.parametrize(
    ("stop", "secret"),
    [
        pytest.param(signal.SIGINT, secrets.token_urlsafe(32), id="Ctrl-C"),
        pytest.param(signal.SIGTERM, "", id="SIGTERM, without webhooks"),
    ],
)
@pytest.mark.long
def test_up_serves_page_and_webhooks_until_it_is_stopped_and_leaves_nothing_running(
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
            [sys.executable, "-m", "kpi_pipeline.cli.main", "up"],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        url = _address(process, output)
        assert httpx.get(f"{url}/server_info", timeout=30).json()["dagster_version"]
        told = output.read_text()
        if secret:
            found = re.search(r"Webhooks are received at (http://\S+)/webhooks/bison/…", told)
            assert found, told
            assert httpx.get(f"{found[1]}/readyz", timeout=30).status_code == 200
            answer = httpx.post(f"{found[1]}/webhooks/bison/{secret}", content=b"{}", timeout=30)
            assert answer.json()["status"] == "invalid"
            assert secret not in told
        else:
            assert "No webhooks are received from main: to receive them, set KPI_WEBHOOK_S" in told
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
