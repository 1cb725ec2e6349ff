"""`kpi gateway`: takes webhooks in; and a secret for their address."""

import logging
import secrets
from typing import Annotated

import typer
from rich.markup import escape

from kpi_pipeline.services.console import err, out
from kpi_pipeline.settings import load_settings


def run(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; unset: KPI_GATEWAY_HOST.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port; 0: any free one; unset: KPI_GATEWAY_PORT.")
    ] = None,
) -> None:
    """Take Email Bison's webhooks in, and work them into the numbers as they arrive.

    Part of `kpi up`; by itself, it goes on while Dagster is down.
    """
    # Imported late, with pandas and all: other commands need none of it.
    from kpi_pipeline.gateway.secrets import unknown_instances
    from kpi_pipeline.gateway.server import serve

    # What goes wrong, and nothing of what comes in: addresses hold secrets, bodies people's data.
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    settings = load_settings()
    if warning := unknown_instances(settings):
        err.print(f"[yellow]Warning:[/yellow] {escape(warning)}", soft_wrap=True)
    serve(
        settings,
        settings.gateway_host if host is None else host,
        settings.gateway_port if port is None else port,
        lambda url: out.print(f"Webhooks are taken at {url}", soft_wrap=True),
    )


def secret() -> None:
    """Print a fresh secret for KPI_WEBHOOK_SECRET_NAME, the last part of a webhook's address."""
    out.print(secrets.token_urlsafe(32), soft_wrap=True, highlight=False)
