"""`kpi up`: the pipeline against the configured Email Bison, until Ctrl-C."""

import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack

from rich.markup import escape

from kpi_pipeline.app import AppContext, open_app
from kpi_pipeline.db.clients import active_clients
from kpi_pipeline.errors import KpiError
from kpi_pipeline.gateway.secrets import secret_setting, unknown_instances, without_secret
from kpi_pipeline.instances import NO_INSTANCE
from kpi_pipeline.services.console import err, out
from kpi_pipeline.services.dagster_home import child_environment, update_grid
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.services.processes import Child, require_free_port
from kpi_pipeline.services.servers import dagster_servers, gateway_server
from kpi_pipeline.settings import Settings

_LOOK_EVERY_SECONDS = 0.5
_MOST_CLIENTS_NAMED = 5


def run_up(settings: Settings) -> None:
    """Start everything, and stay until Ctrl-C or until a process ends.

    Raises:
        KpiError: if something is not configured, does not start, or ends by itself.
    """
    if not settings.bison_instances:
        raise KpiError(f"{NO_INSTANCE} `kpi demo` shows the pipeline without one.")
    require_free_port(settings.web_port, "KPI_WEB_PORT")
    if settings.webhook_secret:
        require_free_port(settings.gateway_port, "KPI_GATEWAY_PORT")
    with ExitStack() as stack:
        settings = stack.enter_context(ready_databases(settings))
        app = stack.enter_context(open_app(settings))
        update_grid(app, settings)
        for warning in (missing_instances(app), unknown_instances(settings)):
            if warning:
                err.print(f"[yellow]Warning:[/yellow] {escape(warning)}", soft_wrap=True)
        environment = child_environment(settings)
        children: list[Child] = []
        # First, as it is there in a second: what Bison tells meanwhile is not lost.
        if settings.webhook_secret:
            address, gateway = stack.enter_context(gateway_server(settings, environment))
            children.append(gateway)
            out.print(f"Webhooks are taken at {address}/webhooks/bison/…", soft_wrap=True)
        if names := without_secret(settings):
            out.print(_how_to_take_webhooks(names), soft_wrap=True)
        page, dagster = stack.enter_context(dagster_servers(settings, environment))
        out.print(f"Dagster is up at [link]{page.url}[/link]; its schedules run by themselves.")
        stay_up([*children, *dagster])


def missing_instances(app: AppContext) -> str | None:
    """A sentence that names each instance that active clients need and nobody configured, if any.

    Syncs fail for those clients alone, so it is no reason not to start.
    """
    known = app.instances()
    without: dict[str, list[str]] = defaultdict(list)
    with app.engine.connect() as connection:
        for client in active_clients(connection):
            if client.instance not in known:
                without[client.instance].append(client.workspace)
    if not without:
        return None
    told = "; ".join(f"{name} ({_some(without[name])})" for name in sorted(without))
    return (
        "Some active clients cannot be fetched until their instance stands in "
        f"KPI_BISON_INSTANCES: {told}."
    )


def _how_to_take_webhooks(instances: Sequence[str]) -> str:
    wanted = ", ".join(map(secret_setting, instances))
    return (
        f"No webhooks are taken from {', '.join(instances)}: for that, set {wanted} to what "
        "`kpi webhook-secret` prints."
    )


def _some(workspaces: Sequence[str]) -> str:
    more = len(workspaces) - _MOST_CLIENTS_NAMED
    named = ", ".join(workspaces[:_MOST_CLIENTS_NAMED])
    return f"{named} and {more} more" if more > 0 else named


def stay_up(children: Sequence[Child]) -> None:
    """Wait until Ctrl-C.

    Raises:
        KpiError: with the end of its log, if one of the processes ends by itself.
    """
    try:
        out.print("Ctrl-C stops everything.")
        while True:
            for child in children:
                child.require_alive()
            time.sleep(_LOOK_EVERY_SECONDS)
    except KeyboardInterrupt:
        out.print("\nStopping …")
