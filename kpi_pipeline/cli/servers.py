"""The long-running processes of the pipeline: Dagster's page and daemon, and the sandbox."""

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
def sandbox_server(
    settings: Settings, environment: Mapping[str, str], options: Mapping[str, object]
) -> Iterator[tuple[str, Child]]:
    """A sandbox on a free port, and its address; stopped when the block ends.

    `options` are those of `kpi sandbox`, by name.

    Raises:
        KpiError: if it does not start.
    """
    port = free_port()
    command = [sys.executable, "-m", "kpi_pipeline.cli.main", "sandbox", "--port", str(port)]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    with Child(
        "The sandbox", command, environment, settings.state_dir / "logs/sandbox.log"
    ) as child:
        url = f"http://127.0.0.1:{port}"
        child.wait_until(lambda: answers(f"{url}/sandbox/setup"), _START_SECONDS)
        yield url, child
