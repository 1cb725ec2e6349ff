"""`kpi clients`: import and list the clients."""

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from kpi_pipeline.app import open_app
from kpi_pipeline.cli.common import cell, local_time, opened_app, out, print_whole
from kpi_pipeline.db.registry.client_import import plan_import, write_import
from kpi_pipeline.db.registry.clients import all_clients
from kpi_pipeline.db.registry.clients_csv import TEMPLATE, read_file, shown_lines
from kpi_pipeline.domain.calendar import first_of_month
from kpi_pipeline.domain.formatting import counted
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would change, and write nothing.")
    ] = False,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes",
            help="Also activate inactive clients, delete targets and store older API keys.",
        ),
    ] = False,
) -> None:
    """Add or change clients; without --targets-from, their targets hold from this month.

    All rows are validated before any is written. A client is identified by instance and workspace
    id. Clients and columns that the file does not have stay as they are. A blank cell deletes a
    target or a display name; a blank `active` or `api_key` changes nothing, and a new client is
    active.
    """
    with ExitStack() as stack:
        settings = stack.enter_context(ready_databases(load_settings()))
        app = stack.enter_context(open_app(settings))
        if not app.instances():
            raise KpiError(NO_INSTANCE)
        records = read_file(file, app.instances())
        month = first_of_month(targets_from.date() if targets_from else app.today())
        with app.engine.begin() as connection:
            plan = plan_import(connection, records, targets_from=month, vault=app.vault)
            risks = plan.risks()
            if not dry_run:
                if risks and not yes:
                    raise KpiError(_refused(file, risks))
                write_import(connection, plan, vault=app.vault, zone=app.day_zone)
        if not dry_run:
            update_grid(app, settings)
    for line in plan.descriptions():
        out.print(line, markup=False, soft_wrap=True)
    done = "would be imported" if dry_run else "imported"
    out.print(
        f"{counted(len(records), 'client')} {done}: {plan.summary()}. "
        f"Targets hold from {month:%Y-%m}.",
        soft_wrap=True,
    )
    if dry_run:
        if risks and not yes:
            out.print(
                f"These changes need --yes:\n{shown_lines(risks)}", markup=False, soft_wrap=True
            )
        out.print("Nothing was written.")


def _refused(file: Path, risks: Sequence[str]) -> str:
    return (
        f"{file} was not imported, as some changes need --yes. Correct these cells, or import it "
        f"again with --yes:\n{shown_lines(risks)}"
    )


@commands.command("list")
def list_clients() -> None:
    """List all clients: identity, name, whether each has an API key, and when Bison listed it."""
    with opened_app() as app, app.engine.connect() as connection:
        clients, zone = all_clients(connection), app.timezone
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
            local_time(client.seen_in_bison_at, zone),
        )
    print_whole(table, out)
    out.print(f"{sum(client.active for client in clients)} of {len(clients)} clients are active.")


@commands.command("template")
def template() -> None:
    """Print a CSV to fill in and import."""
    out.print(TEMPLATE, end="", markup=False, soft_wrap=True)
