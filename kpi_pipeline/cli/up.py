"""`kpi up` and `kpi db upgrade`: run the pipeline against your Email Bison, and upgrade it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Annotated

import typer

from kpi_pipeline.app import AppContext, open_app
from kpi_pipeline.cli.common import err, out, print_warning
from kpi_pipeline.db.registry.clients import active_clients
from kpi_pipeline.db.rollback import downgrade as rollback
from kpi_pipeline.db.rollback import migrations_after
from kpi_pipeline.db.server.engine import is_reachable
from kpi_pipeline.db.server.slots import sharing_connections
from kpi_pipeline.domain.formatting import listed
from kpi_pipeline.errors import KpiError
from kpi_pipeline.instances import NO_INSTANCE
from kpi_pipeline.services.backup import opened_databases
from kpi_pipeline.services.dagster_home import child_environment, dagster_instance, update_grid
from kpi_pipeline.services.database import (
    databases_as_they_are,
    databases_to_upgrade,
    ready_databases,
)
from kpi_pipeline.services.logs import logging_to
from kpi_pipeline.services.processes import Child, require_free_port
from kpi_pipeline.services.running_dagster import one_daemon
from kpi_pipeline.services.servers import (
    dagster_servers,
    dashboard_server,
    embedded_part,
    gateway_server,
)
from kpi_pipeline.services.supervisor import Supervisor
from kpi_pipeline.settings import Settings, load_settings
from kpi_pipeline.settings.private_folders import private_state
from kpi_pipeline.settings.webhooks import secret_setting, unknown_instances, without_secret
from kpi_pipeline.web.access import require_login

database_commands = typer.Typer(help="The databases.", no_args_is_help=True)

_CLIENTS_SHOWN = 5


def run() -> None:
    """Run the pipeline against your Email Bison: database, dashboard, Dagster, and the gateway.

    Stays up until Ctrl-C, and starts each of its processes again when it ends: what happens to one
    stops no other. Refuses to start where a Dagster daemon works on the same database, on this
    machine or another, and names it.
    """
    settings = load_settings()
    if not settings.bison_instances:
        raise KpiError(f"{NO_INSTANCE} `kpi demo` shows the pipeline without one.")
    require_free_port(settings.web_port, "KPI_WEB_PORT")
    require_free_port(settings.dashboard_port, "KPI_DASHBOARD_PORT", settings.dashboard_address)
    if settings.webhook_secret:
        require_free_port(settings.gateway_port, "KPI_GATEWAY_PORT")
    if warning := private_state(settings.state_dir):
        print_warning(warning)
    with ExitStack() as stack:
        stack.enter_context(sharing_connections(settings.state_dir))
        settings = stack.enter_context(ready_databases(settings))
        # Before anything is changed or started beside one that runs.
        claim = stack.enter_context(one_daemon(settings, "kpi up", err.print))
        app = stack.enter_context(open_app(settings))
        for listening in (settings.dashboard_page, settings.dagster_page):
            require_login(settings, app.engine, listening.address, listening.setting)
        update_grid(app, settings)
        for warning in (missing_instances(app), unknown_instances(settings), _missing_rows(app)):
            if warning:
                print_warning(warning)
        environment = child_environment(settings)
        if names := without_secret(settings):
            out.print(_how_to_receive_webhooks(names), soft_wrap=True)
        children: list[Child] = []
        greetings: dict[str, str] = {}
        # First, as it starts within a second: no event that Bison sends meanwhile is lost.
        if settings.webhook_secret:
            address, gateway = gateway_server(settings, environment)
            children.append(gateway)
            greetings[gateway.key] = f"Webhooks are received at {address}/webhooks/bison/…"
        url, dashboard = dashboard_server(settings, environment)
        greetings[dashboard.key] = f"The dashboard is at [link]{url}[/link]."
        page, dagster = stack.enter_context(dagster_servers(settings, environment, claim))
        greetings["page"] = (
            f"Dagster runs at [link]{page.url}[/link], with its schedules and sensors."
        )
        stay_up("kpi up", settings, [*children, dashboard, *dagster], app, greetings)


@database_commands.callback()
def _group() -> None:
    """The databases."""


@database_commands.command("upgrade")
def upgrade() -> None:
    """Upgrade the KPI tables and Dagster's tables to this version; create what is missing."""
    with databases_to_upgrade(load_settings()) as settings, dagster_instance(settings) as dagster:
        dagster.upgrade()
    out.print("Both databases are at this version.")


@database_commands.command("downgrade")
def downgrade(
    revision: Annotated[str, typer.Argument(help="The last revision that the old version knows.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it, only say what.")] = False,
) -> None:
    """Take the KPI tables back to those of an earlier version, before you install that one.

    What later migrations added is deleted with what it holds: `kpi db dump` first. Stop `kpi up`
    and gateways before. Dagster's tables stay as they are.
    """
    with (
        databases_as_they_are(load_settings()) as settings,
        opened_databases(settings) as engines,
    ):
        engine = engines["kpi"]
        found = migrations_after(engine, revision)
        if found and not yes:
            raise KpiError(
                "Nothing was changed. With --yes, these migrations are taken back, and what they "
                "added is deleted:" + "".join(f"\n  {it}" for it in found)
            )
        if found:
            with one_daemon(settings, "kpi db downgrade", err.print):
                rollback(engine, revision)
    out.print(f"The KPI tables are at revision {revision}. Install the version that they are of.")


def missing_instances(app: AppContext) -> str | None:
    """A sentence naming each instance that active clients need and that is not configured, if any.

    Only those clients' syncs fail, so the pipeline starts without it.
    """
    known = app.instances()
    missing: dict[str, list[str]] = defaultdict(list)
    with app.engine.connect() as connection:
        for client in active_clients(connection):
            if client.instance not in known:
                missing[client.instance].append(client.workspace)
    if not missing:
        return None
    named = "; ".join(
        f"{name} ({listed(missing[name], _CLIENTS_SHOWN)})" for name in sorted(missing)
    )
    return (
        "Some active clients cannot be fetched until KPI_BISON_INSTANCES contains their instance: "
        f"{named}."
    )


def _missing_rows(app: AppContext) -> str | None:
    """A sentence if Dagster's grid lacks stored rows, as after a loss of its database."""
    # Imported late, as it imports Dagster.
    from kpi_pipeline.orchestration.rebuild import grid_gap

    with dagster_instance(app.settings) as opened:
        gap = grid_gap(app, opened)
    return None if gap is None else str(gap)


def _how_to_receive_webhooks(instances: Sequence[str]) -> str:
    wanted = ", ".join(map(secret_setting, instances))
    return (
        f"No webhooks are received from {', '.join(instances)}: to receive them, set {wanted} to "
        "what `kpi webhook-secret` prints."
    )


def stay_up(
    command: str,
    settings: Settings,
    children: Sequence[Child],
    app: AppContext,
    greetings: Mapping[str, str],
) -> None:
    """Keep these processes and the embedded server running until Ctrl-C, and then end them.

    `greetings` are printed when the process with that key is ready for the first time.

    Raises:
        KpiError: if all of them end again and again.
    """
    embedded = embedded_part(settings)
    supervisor = Supervisor(
        command,
        settings.state_dir,
        [*([embedded] if embedded else []), *children],
        partial(out.print, soft_wrap=True),
        print_warning,
        lambda: is_reachable(app.engine.url),
        greetings,
    )
    with logging_to(settings.state_dir / "logs/supervisor.log", settings.log_format):
        supervisor.run("Ctrl-C stops everything.")
