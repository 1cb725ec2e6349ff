import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from bison_sandbox import SandboxError, SandboxOptions, serve
from bison_sandbox.faults import KINDS
from bison_sandbox.variants import names
from kpi_pipeline_tests.bison_sandbox.receiver import wait_until

PROGRAM = """
import sys
from bison_sandbox import SandboxOptions, serve
serve(SandboxOptions(port=0, calls_per_second=float(sys.argv[1]), latency=0))
"""


@contextmanager
def served(calls_per_second: float = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(calls_per_second)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline()
        finally:
            process.kill()


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_how_to_use_it_and_ends_quietly_on_a_signal(number: signal.Signals) -> None:
    with served() as (process, line):
        found = re.fullmatch(
            r"Sandbox Email Bison at (http://127\.0\.0\.1:\d+) \(26 workspaces\)\n", line
        )
        assert found, line
        with httpx.Client(base_url=found[1]) as http:
            setup = http.get("/sandbox/setup").json()
            assert setup["instance_url"] == found[1]
            shown = http.get("/").text
            words = [found[1], setup["master_key"], f"{found[1]}/sandbox/clients.csv"]
            process.send_signal(number)
            assert process.stdout is not None
            guide = process.stdout.read()
            _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert guide == f"\n{shown}"
    assert set(words) <= set(guide.split())
    assert all(each in guide for each in (*KINDS, *names()))


@pytest.mark.server
def test_a_log_file_gets_no_key_and_says_where_it_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "sandbox.log"
    with (
        log.open("w") as file,
        subprocess.Popen([sys.executable, "-c", PROGRAM, "0"], stdout=file) as process,
    ):
        try:
            wait_until(lambda: "how to use it" in log.read_text(), log.read_text)
            url = log.read_text().split()[4]
            key = httpx.get(f"{url}/sandbox/setup").json()["master_key"]
        finally:
            process.terminate()
    assert key not in log.read_text()
    assert "Bearer" not in log.read_text()
    assert f"{url}/ says how to use it." in log.read_text()


@pytest.mark.server
def test_calls_that_wait_for_their_turn_do_not_keep_it_alive() -> None:
    with served(calls_per_second=0.2) as (process, line):
        url = line.split()[4]
        httpx.get(f"{url}/api/users")
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{url}/api/users", timeout=0.2)
        waiting = socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])))
        with waiting:
            waiting.sendall(b"GET /api/users HTTP/1.1\r\nHost: x\r\n\r\n")
            _wait_for_calls(url, 3)
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


def _wait_for_calls(url: str, calls: int) -> None:
    deadline = time.monotonic() + 60
    while httpx.get(f"{url}/sandbox/calls").json()["total"] < calls:
        assert time.monotonic() < deadline, "the call never arrived"


def test_a_port_in_use_is_refused_with_its_number_and_a_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SandboxError, match=rf"Port {port} .* in use: .* another port"):
            serve(SandboxOptions(port=port))


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(SandboxError, match=r"can't listen on port 0 of 192\.0\.2\.1"):
        serve(SandboxOptions(host="192.0.2.1", port=0))
