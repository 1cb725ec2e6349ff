"""`kpi clients`: import and list the clients."""

from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from kpi_pipeline.app import open_app
from kpi_pipeline.cli.common import cell, opened_app, out, print_whole
from kpi_pipeline.db.clients import all_clients, import_clients
from kpi_pipeline.db.clients_csv import TEMPLATE, read_file
from kpi_pipeline.domain.calendar import first_of_month
from kpi_pipeline.errors import KpiError
from kpi_pipeline.instances import NO_INSTANCE
from kpi_pipeline.services.dagster_home import update_grid
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.settings import load_settings

commands = typer.Typer(help="The clients, their targets and their API keys.", no_args_is_help=True)


@commands.command("import")
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

    All rows are validated before any is written. A client is identified by instance and workspace
    id; clients that the file does not name stay as they are.
    """
    with ExitStack() as stack:
        settings = stack.enter_context(ready_databases(load_settings()))
        app = stack.enter_context(open_app(settings))
        if not app.instances():
            raise KpiError(NO_INSTANCE)
        records = read_file(file, app.instances())
        month = first_of_month(targets_from.date() if targets_from else app.today())
        with app.engine.begin() as connection:
            keys = import_clients(connection, records, targets_from=month, vault=app.vault)
        update_grid(app, settings)
    own = sum(record.api_key is not None for record in records)
    out.print(
        f"{len(keys)} clients imported, {own} with an API key in the file; "
        f"targets hold from {month:%Y-%m}."
    )


@commands.command("list")
def list_clients() -> None:
    """List all clients: identity, name, whether each has an API key, and when Bison listed it."""
    with opened_app() as app, app.engine.connect() as connection:
        clients = all_clients(connection)
    table = Table(
        "Workspace key", "Name", "Instance", "Workspace id", "Active", "Own API key", "In Bison"
    )
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


@commands.command("template")
def template() -> None:
    """Print a CSV to fill in and import."""
    out.print(TEMPLATE, end="", markup=False, soft_wrap=True)
