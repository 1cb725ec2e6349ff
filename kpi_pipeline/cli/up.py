"""`kpi up`: the pipeline against the configured Email Bison, until Ctrl-C."""

import time
from collections.abc import Sequence
from contextlib import ExitStack

from kpi_pipeline.cli.clients import update_grid
from kpi_pipeline.cli.console import out
from kpi_pipeline.cli.dagster_home import child_environment
from kpi_pipeline.cli.database import ready_databases
from kpi_pipeline.cli.processes import Child, require_free_port
from kpi_pipeline.cli.servers import dagster_servers
from kpi_pipeline.deployment import open_deployment
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import Settings

_LOOK_EVERY_SECONDS = 0.5


def run_up(settings: Settings) -> None:
    """Start everything, and stay until Ctrl-C or until a process ends.

    Raises:
        KpiError: if something is not configured, does not start, or ends by itself.
    """
    if settings.bison_url is None:
        raise KpiError(
            "No Email Bison is configured: set KPI_BISON_URL to its address. "
            "`kpi demo` shows the pipeline without one."
        )
    require_free_port(settings.web_port, "KPI_WEB_PORT")
    with ExitStack() as stack:
        settings = stack.enter_context(ready_databases(settings))
        deployment = stack.enter_context(open_deployment(settings))
        update_grid(deployment, settings)
        page, children = stack.enter_context(dagster_servers(settings, child_environment(settings)))
        out.print(f"Dagster is up at [link]{page.url}[/link]; its schedules run by themselves.")
        stay_up(children)


def stay_up(children: Sequence[Child]) -> None:
    """Wait until Ctrl-C.

    Raises:
        KpiError: with the end of its log, if one of the processes ends by itself.
    """
    out.print("Ctrl-C stops everything.")
    try:
        while True:
            for child in children:
                child.require_alive()
            time.sleep(_LOOK_EVERY_SECONDS)
    except KeyboardInterrupt:
        out.print("\nStopping …")
