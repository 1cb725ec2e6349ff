"""`kpi dashboard`: the page on which an agency reads its numbers."""

import logging
from typing import Annotated

import typer

from kpi_pipeline.cli.common import out
from kpi_pipeline.settings import load_settings
from kpi_pipeline.settings.logs import log_to_standard_error


def run(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; unset: KPI_DASHBOARD_ADDRESS.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port; 0: any free port; unset: KPI_DASHBOARD_PORT.")
    ] = None,
) -> None:
    """Show the KPI dashboard: every client on one page, live.

    Part of `kpi up` and `kpi demo`. Run on its own, it needs the database alone.
    """
    # Imported late: no other command needs templates.
    from kpi_pipeline.dashboard.server import serve

    settings = load_settings()
    # No access log: queries hold names of clients.
    log_to_standard_error(settings.log_format)
    # Who muted a check or deactivated a client is noted in the log alone.
    logging.getLogger("kpi_pipeline.dashboard.actions").setLevel(logging.INFO)
    serve(
        settings,
        settings.dashboard_address if host is None else host,
        settings.dashboard_port if port is None else port,
        lambda url: out.print(f"The dashboard is at [link]{url}[/link]", soft_wrap=True),
    )
