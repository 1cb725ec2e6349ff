"""The long-running processes: Dagster's page and daemon, the gateway, and the sandbox."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from kpi_pipeline.cli.dagster_home import WORKSPACE_FILE
from kpi_pipeline.cli.dagster_page import DagsterPage
from kpi_pipeline.cli.processes import Child, answers, free_port, require_free_port
from kpi_pipeline.settings import Settings

_START_SECONDS = 120.0


@contextmanager
def dagster_servers(
    settings: Settings, environment: Mapping[str, str]
) -> Iterator[tuple[DagsterPage, list[Child]]]:
    """Dagster's page and daemon, ready to work; stopped when the block ends.

    Raises:
        KpiError: if the page's port is taken, or one of the two does not start.
    """
    require_free_port(settings.web_port, "KPI_WEB_PORT")
    port = settings.web_port or free_port()
    # Alerts link to the page.
    environment = {**environment, "KPI_WEB_PORT": str(port)}
    logs = settings.state_dir / "logs"
    workspace = str(WORKSPACE_FILE)
    page = [sys.executable, "-m", "dagster_webserver", "-h", "127.0.0.1", "-p", str(port)]
    daemon = [sys.executable, "-m", "dagster._daemon", "run"]
    with ExitStack() as stack:
        children = [
            stack.enter_context(Child(name, command, environment, logs / file))
            for name, command, file in (
                ("Dagster's page", [*page, "-w", workspace], "webserver.log"),
                ("Dagster's daemon", [*daemon, "-w", workspace], "daemon.log"),
            )
        ]
        url = f"http://127.0.0.1:{port}"
        children[0].wait_until(lambda: answers(f"{url}/server_info"), _START_SECONDS)
        yield DagsterPage(url), children


@contextmanager
def gateway_server(
    settings: Settings, environment: Mapping[str, str]
) -> Iterator[tuple[str, Child]]:
    """The gateway, and its address as this machine reaches it; stopped when the block ends.

    Raises:
        KpiError: if its port is taken, or it does not start.
    """
    require_free_port(settings.gateway_port, "KPI_GATEWAY_PORT")
    port = settings.gateway_port or free_port()
    command = [sys.executable, "-m", "kpi_pipeline.cli.main", "gateway", "--port", str(port)]
    with Child(
        "The gateway", command, environment, settings.state_dir / "logs/gateway.log"
    ) as child:
        url = f"http://{_reached_at(settings.gateway_host)}:{port}"
        child.wait_until(lambda: answers(f"{url}/healthz"), _START_SECONDS)
        yield url, child


def _reached_at(host: str) -> str:
    """Where a server that listens on `host` answers, as the host of an address."""
    # These two are every address of the machine.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not bound here
    return f"[{host}]" if ":" in host else host


@contextmanager
def sandbox_server(
    settings: Settings, environment: Mapping[str, str], options: Mapping[str, object]
) -> Iterator[tuple[str, Child]]:
    """A sandbox on a free port, and its address; stopped when the block ends.

    `options` are those of `kpi sandbox`, by name; True stands for one that takes no value.

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
