"""`kpi clients`: import, export and list the clients, and change their thresholds."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from kpi_pipeline.app import open_app
from kpi_pipeline.checks.pace import DEFAULT_MAX_SENDING_SHORTFALL, DEFAULT_MIN_REPLY_RATE
from kpi_pipeline.cli.common import cell, local_time, opened_app, out, print_whole
from kpi_pipeline.db.registry.client_import import plan_import, write_import
from kpi_pipeline.db.registry.clients import all_clients
from kpi_pipeline.db.registry.clients_csv import TEMPLATE, export, read_file, shown_lines
from kpi_pipeline.db.registry.thresholds import (
    Thresholds,
    read_percent,
    read_thresholds,
    set_thresholds,
    shown_percent,
)
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
    target, a threshold or a display name; a blank `active` or `api_key` changes nothing, and a new
    client is active.
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
    active = sum(client.active for client in clients)
    out.print(f"Active: {active} of {counted(len(clients), 'client')}.")


@commands.command("template")
def template() -> None:
    """Print a CSV to fill in and import."""
    out.print(TEMPLATE, end="", markup=False, soft_wrap=True)


@commands.command("export")
def export_file() -> None:
    """Print all clients as a CSV to edit and import again: this month's targets, no API keys."""
    with opened_app() as app, app.engine.connect() as connection:
        sys.stdout.write(export(connection, first_of_month(app.today())))


_OWN_DEFAULT = "default"


def _percent_or_default(text: str) -> Decimal | None:
    if text.strip().lower() == _OWN_DEFAULT:
        return None
    try:
        return read_percent(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is neither {_OWN_DEFAULT!r} nor {error}.") from None


@commands.command("thresholds")
def thresholds(
    client: Annotated[
        str | None, typer.Argument(metavar="CLIENT", help="A workspace key; unset: all.")
    ] = None,
    max_sending_shortfall: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT",
            help="How far its emails may be behind its sending target (sending_pace).",
        ),
    ] = None,
    min_reply_rate: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT",
            help="The least share of its emails that are replied to (reply_rate).",
        ),
    ] = None,
) -> None:
    """Show what checks expect of each client, or change it for one, to a percentage or `default`.

    100 for the first, or 0 for the second, switches the check off for the client.
    """
    given = {"max_sending_shortfall": max_sending_shortfall, "min_reply_rate": min_reply_rate}
    changes = {name: _percent_or_default(it) for name, it in given.items() if it is not None}
    if changes and client is None:
        raise KpiError("Name the client whose thresholds are to change: `kpi clients list`.")
    with opened_app() as app, app.engine.begin() as connection:
        known = read_thresholds(connection)
        if client is not None and client not in known:
            raise KpiError(
                f"There is no client {client}. `kpi clients list` shows the workspace keys."
            )
        if client is not None and changes:
            set_thresholds(connection, client, changes)
            known = read_thresholds(connection)
    table = Table("Workspace key", "Sending shortfall at most", "Reply rate at least")
    for workspace, own in known.items():
        if client in (None, workspace):
            table.add_row(workspace, *_shown(own))
    print_whole(table, out)


def _shown(own: Thresholds) -> list[str]:
    values = (
        (own.max_sending_shortfall, DEFAULT_MAX_SENDING_SHORTFALL),
        (own.min_reply_rate, DEFAULT_MIN_REPLY_RATE),
    )
    return [
        f"{shown_percent(default)} % (default)" if value is None else f"{shown_percent(value)} %"
        for value, default in values
    ]
