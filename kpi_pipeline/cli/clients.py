"""`kpi clients`: who the pipeline works for."""

from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from kpi_pipeline.business_days import first_of_month
from kpi_pipeline.cli.console import out
from kpi_pipeline.cli.dagster_home import dagster_instance
from kpi_pipeline.cli.database import ready_databases
from kpi_pipeline.cli.tables import cell, print_whole
from kpi_pipeline.deployment import Deployment, open_deployment
from kpi_pipeline.errors import KpiError
from kpi_pipeline.instances import NO_INSTANCE
from kpi_pipeline.settings import Settings, load_settings
from kpi_pipeline.warehouse.clients import active_clients, all_clients, import_clients
from kpi_pipeline.warehouse.clients_csv import TEMPLATE, read_file

app = typer.Typer(help="The clients, their targets and their API keys.", no_args_is_help=True)


@app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="See `kpi clients template`.")],
    targets_from: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m"], metavar="YYYY-MM", help="Month from which the targets hold."
        ),
    ] = None,
) -> None:
    """Add or change clients; without --targets-from, their targets hold from this month.

    All rows are checked before any is written. A client is known again by its instance and
    workspace id; one that the file does not name stays as it is.
    """
    with ExitStack() as stack:
        settings = stack.enter_context(ready_databases(load_settings()))
        deployment = stack.enter_context(open_deployment(settings))
        if not deployment.instances():
            raise KpiError(NO_INSTANCE)
        records = read_file(file, deployment.instances())
        month = first_of_month(targets_from.date() if targets_from else deployment.today())
        with deployment.engine.begin() as connection:
            keys = import_clients(connection, records, targets_from=month, vault=deployment.vault)
        update_grid(deployment, settings)
    own = sum(record.api_key is not None for record in records)
    out.print(
        f"{len(keys)} clients imported, {own} with an API key in the file; "
        f"targets hold from {month:%Y-%m}."
    )


def update_grid(deployment: Deployment, settings: Settings) -> list[str]:
    """Show the active clients in Dagster's grid, without a run; return them in the grid's order."""
    with dagster_instance(settings) as instance:
        from kpi_pipeline.partitions import WORKSPACE, sync_workspace_partitions

        with deployment.engine.connect() as connection:
            active = [client.workspace for client in active_clients(connection)]
        sync_workspace_partitions(instance, active)
        return list(instance.get_dynamic_partitions(WORKSPACE))


@app.command("list")
def list_clients() -> None:
    """List all clients: key, name, instance, workspace id, and whether each has an API key."""
    with ExitStack() as stack:
        settings = stack.enter_context(ready_databases(load_settings(), dagster_too=False))
        deployment = stack.enter_context(open_deployment(settings))
        with deployment.engine.connect() as connection:
            clients = all_clients(connection)
    table = Table("Key", "Name", "Instance", "Workspace id", "Active", "Own API key", "In Bison")
    for client in clients:
        table.add_row(
            client.workspace,
            escape(client.label),
            client.instance,
            str(client.bison_workspace_id),
            cell(client.active),
            cell(client.has_key),
            cell(client.seen_in_bison_at),
        )
    print_whole(table, out)
    out.print(f"{sum(client.active for client in clients)} of {len(clients)} clients are active.")


@app.command("template")
def template() -> None:
    """Print a CSV to fill in and import."""
    out.print(TEMPLATE, end="", markup=False, soft_wrap=True)
