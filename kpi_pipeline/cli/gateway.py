"""`kpi gateway` and `kpi webhook-secret`: receive webhooks, at an address that holds a secret."""

import secrets
from typing import Annotated

import typer

from kpi_pipeline.cli.common import out, print_warning
from kpi_pipeline.settings import load_settings
from kpi_pipeline.settings.logs import log_to_standard_error


def run(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; unset: KPI_GATEWAY_HOST.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port; 0: any free port; unset: KPI_GATEWAY_PORT.")
    ] = None,
) -> None:
    """Receive Email Bison's webhooks, and update the numbers as they arrive.

    Part of `kpi up`. Run on its own, it does not depend on Dagster.
    """
    # Imported late: no other command needs a web server.
    from kpi_pipeline.gateway.server import serve
    from kpi_pipeline.settings.webhooks import unknown_instances

    settings = load_settings()
    # Errors only: addresses of requests hold secrets, and their bodies people's data.
    log_to_standard_error(settings.log_format)
    if warning := unknown_instances(settings):
        print_warning(warning)
    serve(
        settings,
        settings.gateway_host if host is None else host,
        settings.gateway_port if port is None else port,
        lambda url: out.print(f"Webhooks are received at {url}", soft_wrap=True),
    )


def print_secret() -> None:
    """Print a new secret for KPI_WEBHOOK_SECRET_NAME, the last part of a webhook's address."""
    out.print(secrets.token_urlsafe(32), soft_wrap=True, highlight=False)
