"""The long-running processes: Dagster's three, the gateway, the dashboard, and the sandbox.

They are described here, and started by `Child.start`: by a command that waits for each, or by the
supervisor.
"""

import json
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kpi_pipeline.db.server.embedded import EmbeddedServer
from kpi_pipeline.orchestration.runtime import LOCATION
from kpi_pipeline.probe import speaks_grpc
from kpi_pipeline.services.dagster_home import dagster_instance
from kpi_pipeline.services.dagster_page import DagsterPage, page_of
from kpi_pipeline.services.database import embedded_of
from kpi_pipeline.services.processes import (
    Child,
    answers,
    free_port,
    is_paused,
    require_free_port,
    responds,
)
from kpi_pipeline.settings import Settings
from kpi_pipeline.settings.web import reached_at

if TYPE_CHECKING:
    # Imported late below: Dagster takes more than a second.
    from dagster import DagsterInstance

    from kpi_pipeline.orchestration.runtime.one_daemon import DaemonClaim


def started_in_order(stack: ExitStack, children: Sequence[Child]) -> None:
    """Start each child and wait until it is ready; stop all when the stack is closed.

    Raises:
        KpiError: if one of them does not start.
    """
    for child in children:
        stack.enter_context(child).await_answer()


@contextmanager
def dagster_servers(
    settings: Settings, environment: Mapping[str, str], claim: "DaemonClaim"
) -> Iterator[tuple[DagsterPage, list[Child]]]:
    """Dagster's code server, daemon and page, in the order of their start.

    The daemon shares the claim to be the one daemon of its database, and must not outlive it. The
    block lasts as long as they run: it holds their workspace file.

    Raises:
        KpiError: if the page's port is in use.
    """
    require_free_port(settings.web_port, "KPI_WEB_PORT", settings.web_address)
    settings = settings.model_copy(update={"web_port": settings.web_port or free_port()})
    # Alerts link to the page.
    environment = {**environment, "KPI_WEB_PORT": str(settings.web_port)}
    logs = settings.state_dir / "logs"
    # Those of a Dagster that was killed: the claim says that there is no other one.
    _report_lost_runs(settings)
    with code_server(environment, logs, settings.log_format) as (workspace, code):
        code.before_restart = lambda: _report_lost_runs(settings)
        page = page_of(settings)
        options = ["-w", workspace]
        if settings.log_format == "json":
            options += ["--log-format", "json"]
        daemon = Child(
            "Dagster's daemon",
            [*_module("orchestration.runtime.daemon"), "run", *options],
            {**environment, **claim.environment},
            logs / "daemon.log",
            responds=lambda: not is_paused(daemon.pid) and claim.daemon_beats(),
        )
        daemon.needs = claim.require_held
        web = Child(
            "Dagster's page",
            [*_module("orchestration.runtime.webserver"), *options],
            environment,
            logs / "webserver.log",
            key="page",
            answers=page.answers,
            responds=lambda: responds(f"{page.url}/server_info"),
        )
        claim.announce(page.url)
        yield page, [code, daemon, web]


@contextmanager
def code_server(
    environment: Mapping[str, str], logs: Path, log_format: str = "text"
) -> Iterator[tuple[str, Child]]:
    """The code server, and the workspace file with which the page and the daemon find it.

    With workspace.yaml each of the two would start a code server of its own.
    """
    # Not in the state folder: the path of a Unix socket must be short, and private to this user.
    with tempfile.TemporaryDirectory(prefix="kpi-code-") as folder:
        address, workspace = Path(folder) / "socket", Path(folder) / "workspace.yaml"
        server = {"socket": str(address), "location_name": LOCATION}
        workspace.write_text(json.dumps({"load_from": [{"grpc_server": server}]}))
        yield (
            str(workspace),
            Child(
                "Dagster's code server",
                [*_module("orchestration.runtime.code_server"), str(address), log_format],
                environment,
                logs / "code.log",
                answers=lambda: speaks_grpc(address),
            ),
        )


def gateway_server(settings: Settings, environment: Mapping[str, str]) -> tuple[str, Child]:
    """The address of the gateway on this machine, and its process.

    Raises:
        KpiError: if its port is in use.
    """
    require_free_port(settings.gateway_port, "KPI_GATEWAY_PORT")
    port = settings.gateway_port or free_port()
    url = f"http://{reached_at(settings.gateway_host)}:{port}"
    child = _our_server(
        "The gateway", settings, environment, ["gateway", "--port", str(port)], f"{url}/healthz"
    )
    # Until the database is back, it answers that events are to be sent again.
    child.needs_database = False
    return url, child


def dashboard_server(settings: Settings, environment: Mapping[str, str]) -> tuple[str, Child]:
    """The address of the dashboard's first page on this machine, and its process.

    Raises:
        KpiError: if its port is in use.
    """
    require_free_port(settings.dashboard_port, "KPI_DASHBOARD_PORT", settings.dashboard_address)
    port = settings.dashboard_port or free_port()
    host = reached_at(settings.dashboard_address)
    url = f"http://{host}:{port}{settings.dashboard_path_prefix}"
    words = ["dashboard", "--port", str(port)]
    return f"{url}/", _our_server("The dashboard", settings, environment, words, f"{url}/healthz")


def sandbox_server(
    settings: Settings, environment: Mapping[str, str], options: Mapping[str, object]
) -> tuple[str, Child]:
    """The address of a sandbox on a free port, and its process.

    `options` are those of `kpi sandbox`, by name; True is the value of a flag.
    """
    port = free_port()
    words = ["sandbox", "--port", str(port)]
    for name, value in options.items():
        words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    url = f"http://127.0.0.1:{port}"
    child = _our_server("The sandbox", settings, environment, words, f"{url}/sandbox/setup")
    child.needs_database = False
    return url, child


class EmbeddedPart:
    """The embedded PostgreSQL, supervised: `ready_databases` starts it first, and stops it."""

    key, name = "postgres", "The embedded PostgreSQL"
    needs_database = False
    is_started = True
    pid = None

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self._starting: Future[None] | None = None
        self.log = server.log
        self.answers = self.responds = server.is_running

    def needs(self) -> None:
        """It may always run."""

    def start(self) -> None:
        """Start it in a thread, as it may have to recover for a while."""
        self._starting = Future()
        threading.Thread(target=self._start, args=(self._starting,), daemon=True).start()

    def _start(self, started: "Future[None]") -> None:
        try:
            self._server.start()
        except Exception as error:  # noqa: BLE001 - `problem` says it
            started.set_exception(error)
        else:
            started.set_result(None)

    def problem(self) -> str | None:
        """Why it does not run: the rest of a sentence that its name begins."""
        if self._starting is not None:
            if not self._starting.done():
                return None
            if error := self._starting.exception():
                return f"could not be started: {error}"
        return None if self._server.is_running() else "has ended, or is paused"

    def stop(self) -> None:
        """Wait until a start that is under way has ended; only then is there a server to stop."""
        if self._starting is not None:
            wait([self._starting])

    def kill(self) -> None:
        """End it at once."""
        self._server.stop(crash=True)


def embedded_part(settings: Settings) -> EmbeddedPart | None:
    """The embedded server as a part; None if the KPI database is on a server of the operator's."""
    server = embedded_of(settings)
    return None if server is None else EmbeddedPart(server)


def _our_server(
    name: str,
    settings: Settings,
    environment: Mapping[str, str],
    words: Sequence[str],
    health: str,
) -> Child:
    """A `kpi` command that serves; `health` is what it answers once it is ready."""
    return Child(
        name,
        [*_module("cli.main"), *words],
        environment,
        settings.state_dir / f"logs/{words[0]}.log",
        answers=lambda: answers(health),
        responds=lambda: responds(health),
    )


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", f"kpi_pipeline.{name}"]


def _report_lost_runs(settings: Settings) -> None:
    with dagster_instance(settings) as opened:
        report_lost_runs(opened)


def report_lost_runs(dagster_instance: "DagsterInstance") -> None:
    """Report runs whose processes ended with their code server as failed.

    Dagster would show them as running for hours. It starts failed ones again. A launcher that can
    tell whether a run lives, as that of Kubernetes, does not run them here.
    """
    from dagster import DagsterRunStatus, RunsFilter

    if dagster_instance.run_launcher.supports_check_run_worker_health:
        return
    under_way = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED]
    for run in dagster_instance.get_runs(RunsFilter(statuses=under_way)):
        if run.remote_job_origin is not None:
            dagster_instance.report_run_failed(run, "Dagster was stopped during this run.")
