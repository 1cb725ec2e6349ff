"""`kpi up` as a process, on an embedded server and with the clients of a sandbox."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
from pydantic import SecretStr

from kpi_pipeline.errors import KpiError
from kpi_pipeline.instances import InstanceSetting, format_instances
from kpi_pipeline.parts import PartStatus, read_parts
from kpi_pipeline.services.dagster_page import DagsterPage
from kpi_pipeline.services.servers import sandbox_server
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.cli.running import calm_zone, wait_until

KPI = [sys.executable, "-m", "kpi_pipeline.cli.main"]
SECRET = "a-secret-of-these-tests-alone"
PARTS = ["postgres", "gateway", "dashboard", "code", "daemon", "page"]
# How long a test waits for parts; the machine of a test has other work to do.
_PATIENCE = 150.0
_LOCATION = """{ workspaceOrError { ... on Workspace { locationEntries {
    locationOrLoadError { __typename } } } } }"""


class Up:
    """A running `kpi up` on an embedded server, with the clients of a sandbox."""

    def __init__(self, process: "subprocess.Popen[bytes]", state: Path, output: Path) -> None:
        self.process = process
        self.state = state
        self.output = output
        self.gateway = self._said(r"received at (http://\S+)/webhooks/bison/…")
        self.dashboard = self._said(r"The dashboard is at (\S+)/\.\n")
        self.page = DagsterPage(self._said(r"Dagster runs at (\S+),"))
        self._said("(Ctrl-C stops everything)")

    def _said(self, pattern: str) -> str:
        def found() -> bool:
            assert self.process.poll() is None, self.output.read_text()
            return re.search(pattern, self.output.read_text()) is not None

        wait_until(found, pattern, seconds=300, every=0.2, details=self.output.read_text)
        match = re.search(pattern, self.output.read_text())
        assert match is not None
        return match[1]

    def pids(self) -> dict[str, int]:
        """The process id of each part; of PostgreSQL, that of its first process."""
        found = read_parts(self.state)
        assert found is not None
        pids = {it.key: it.pid for it in found.parts if it.pid is not None}
        with suppress(OSError, IndexError):
            postmaster = (self.state / "postgres/postmaster.pid").read_text().split()[0]
            pids["postgres"] = int(postmaster)
        return pids

    def restarts(self) -> dict[str, int]:
        found = read_parts(self.state)
        assert found is not None
        return {it.key: it.restarts for it in found.parts}

    def is_well(self) -> bool:
        """Whether every part runs, and does its work."""
        found = read_parts(self.state)
        if found is None or any(it.status is not PartStatus.RUNNING for it in found.parts):
            return False
        if len(self.pids()) < len(PARTS):
            return False
        try:
            healthy = [
                httpx.get(url, timeout=5).status_code == 200
                for url in (f"{self.gateway}/readyz", f"{self.dashboard}/healthz")
            ]
            entries = self.page.query(_LOCATION, {}, timeout=5)["workspaceOrError"]
        except (httpx.TransportError, KpiError):
            return False
        loaded = [it["locationOrLoadError"] for it in entries["locationEntries"]]
        return all(healthy) and [it and it["__typename"] for it in loaded] == ["RepositoryLocation"]

    def send_signal(self, number: signal.Signals, *keys: str) -> None:
        pids = self.pids()
        for key in keys:
            os.kill(pids[key], number)

    def seconds_until_well(self, restarted: Callable[[], bool]) -> float:
        """Wait until parts were restarted and all is well; how long it took."""
        began = time.monotonic()
        wait_until(
            lambda: restarted() and self.is_well(),
            "all parts at work",
            seconds=_PATIENCE,
            every=0.3,
            details=lambda: (self.restarts(), self.output.read_text()[-3_000:]),
        )
        return time.monotonic() - began

    def kill(self, *keys: str, number: signal.Signals = signal.SIGKILL) -> float:
        """Kill or pause these parts; the seconds until others of them do the work."""
        before = self.restarts()
        self.send_signal(number, *keys)
        return self.seconds_until_well(
            lambda: all(self.restarts()[key] > before[key] for key in keys)
        )


@contextmanager
def running_up(state: Path) -> Iterator[Up]:
    with ExitStack() as stack:
        base = Settings(state_dir=state.parent / "sandbox")
        options = {"clients": 4, "calls-per-second": 0, "latency": 0.05}
        url, sandbox = sandbox_server(base, dict(os.environ), options)
        stack.enter_context(sandbox).await_answer()
        setup = httpx.get(f"{url}/sandbox/setup", timeout=30).json()
        instance = InstanceSetting("main", url, SecretStr(setup["master_key"]))
        environment = dict(os.environ) | {
            "KPI_STATE_DIR": str(state),
            "KPI_BISON_INSTANCES": format_instances([instance]),
            "KPI_TIMEZONE": calm_zone().key,
            "KPI_WEB_PORT": "0",
            "KPI_GATEWAY_PORT": "0",
            "KPI_DASHBOARD_PORT": "0",
            "KPI_EVENT_FEED_MINUTES": "off",
            "KPI_WEBHOOK_SECRET_MAIN": SECRET,
        }
        table = state.parent / "clients.csv"
        table.write_text(httpx.get(f"{url}/sandbox/clients.csv?instance=main", timeout=30).text)
        subprocess.run([*KPI, "clients", "import", str(table)], env=environment, check=True)
        output = state.parent / "output"
        with output.open("w") as file:
            process = subprocess.Popen(
                [*KPI, "up"], env=environment, stdout=file, stderr=subprocess.STDOUT
            )
        try:
            yield Up(process, state, output)
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=180) == 0, output.read_text()
        finally:
            process.kill()
            process.wait()
        assert "Traceback" not in output.read_text()
