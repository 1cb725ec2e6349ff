"""The long-running processes: Dagster's three, the gateway, the dashboard, and the sandbox."""

import json
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kpi_pipeline.orchestration.runtime import LOCATION
from kpi_pipeline.services.dagster_page import DagsterPage, page_of
from kpi_pipeline.services.processes import Child, answers, free_port, require_free_port
from kpi_pipeline.settings import Settings
from kpi_pipeline.settings.web import reached_at

if TYPE_CHECKING:
    from kpi_pipeline.orchestration.runtime.one_daemon import DaemonClaim

_START_SECONDS = 120.0


@contextmanager
def dagster_servers(
    settings: Settings, environment: Mapping[str, str], claim: "DaemonClaim"
) -> Iterator[tuple[DagsterPage, list[Child]]]:
    """Dagster's code server, page and daemon, started; stopped when the block ends.

    The daemon shares the claim to be the one daemon of its database.

    Raises:
        KpiError: if the page's port is in use, or one of them does not start.
    """
    require_free_port(settings.web_port, "KPI_WEB_PORT", settings.web_address)
    settings = settings.model_copy(update={"web_port": settings.web_port or free_port()})
    # Alerts link to the page.
    environment = {**environment, "KPI_WEB_PORT": str(settings.web_port)}
    logs = settings.state_dir / "logs"
    with ExitStack() as stack:
        workspace, code = stack.enter_context(code_server(environment, logs))
        page = page_of(settings)
        pages = [sys.executable, "-m", "kpi_pipeline.orchestration.runtime.webserver"]
        daemon = [sys.executable, "-m", "kpi_pipeline.orchestration.runtime.daemon", "run"]
        shared = {**environment, **claim.environment}
        children = [
            stack.enter_context(Child(name, [*command, "-w", workspace], variables, logs / file))
            for name, command, variables, file in (
                ("Dagster's page", pages, environment, "webserver.log"),
                ("Dagster's daemon", daemon, shared, "daemon.log"),
            )
        ]
        children[1].needs = claim.require_held
        children[0].wait_until(page.answers, _START_SECONDS)
        claim.announce(page.url)
        yield page, [code, *children]


@contextmanager
def code_server(environment: Mapping[str, str], logs: Path) -> Iterator[tuple[str, Child]]:
    """The code server, and the workspace file with which the page and the daemon find it.

    With workspace.yaml each of the two would start a code server of its own.

    Raises:
        KpiError: if it does not start.
    """
    # Not in the state folder: the path of a Unix socket must be short, and private to this user.
    with tempfile.TemporaryDirectory(prefix="kpi-code-") as folder:
        address, workspace = Path(folder) / "socket", Path(folder) / "workspace.yaml"
        server = {"socket": str(address), "location_name": LOCATION}
        workspace.write_text(json.dumps({"load_from": [{"grpc_server": server}]}))
        command = [
            sys.executable,
            "-m",
            "kpi_pipeline.orchestration.runtime.code_server",
            str(address),
        ]
        with Child("Dagster's code server", command, environment, logs / "code.log") as child:
            child.wait_until(lambda: _accepts(address), _START_SECONDS)
            yield str(workspace), child


def _accepts(address: Path) -> bool:
    """Whether a server listens on this Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(address)) == 0


@contextmanager
def gateway_server(
    settings: Settings, environment: Mapping[str, str]
) -> Iterator[tuple[str, Child]]:
    """The gateway, and its address on this machine; stopped when the block ends.

    Raises:
        KpiError: if its port is in use, or it does not start.
    """
    require_free_port(settings.gateway_port, "KPI_GATEWAY_PORT")
    port = settings.gateway_port or free_port()
    command = [sys.executable, "-m", "kpi_pipeline.cli.main", "gateway", "--port", str(port)]
    with Child(
        "The gateway", command, environment, settings.state_dir / "logs/gateway.log"
    ) as child:
        url = f"http://{reached_at(settings.gateway_host)}:{port}"
        child.wait_until(lambda: answers(f"{url}/healthz"), _START_SECONDS)
        yield url, child


@contextmanager
def dashboard_server(
    settings: Settings, environment: Mapping[str, str]
) -> Iterator[tuple[str, Child]]:
    """The dashboard, and the address of its first page here; stopped when the block ends.

    Raises:
        KpiError: if its port is in use, or it does not start.
    """
    require_free_port(settings.dashboard_port, "KPI_DASHBOARD_PORT", settings.dashboard_address)
    port = settings.dashboard_port or free_port()
    command = [sys.executable, "-m", "kpi_pipeline.cli.main", "dashboard", "--port", str(port)]
    log = settings.state_dir / "logs/dashboard.log"
    with Child("The dashboard", command, environment, log) as child:
        host = reached_at(settings.dashboard_address)
        url = f"http://{host}:{port}{settings.dashboard_path_prefix}"
        child.wait_until(lambda: answers(f"{url}/healthz"), _START_SECONDS)
        yield f"{url}/", child


@contextmanager
def sandbox_server(
    settings: Settings, environment: Mapping[str, str], options: Mapping[str, object]
) -> Iterator[tuple[str, Child]]:
    """A sandbox on a free port, and its address; stopped when the block ends.

    `options` are those of `kpi sandbox`, by name; True is the value of a flag.

    Raises:
        KpiError: if it does not start.
    """
    port = free_port()
    command = [sys.executable, "-m", "kpi_pipeline.cli.main", "sandbox", "--port", str(port)]
    for name, value in options.items():
        command += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    with Child(
        "The sandbox", command, environment, settings.state_dir / "logs/sandbox.log"
    ) as child:
        url = f"http://127.0.0.1:{port}"
        child.wait_until(lambda: answers(f"{url}/sandbox/setup"), _START_SECONDS)
        yield url, child
