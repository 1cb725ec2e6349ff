"""The entry of the `kpi` command: which commands there are, and how errors end them."""

import signal
import sys
from importlib.metadata import version
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.markup import escape
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.bison import BisonError
from kpi_pipeline.cli import (
    accuracy,
    alerts,
    backfill,
    backup,
    bison,
    clients,
    dagster,
    dashboard,
    demo,
    doctor,
    events,
    export,
    gateway,
    init,
    keys,
    metrics,
    migrate_from,
    readers,
    recompute,
    sandbox,
    status,
    sync,
    up,
    users,
    webhooks,
)
from kpi_pipeline.cli.common import err, out
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.database import storage_error
from kpi_pipeline.settings import load_settings

commands = typer.Typer(
    name="kpi",
    help="KPIs of cold-email campaigns, kept current from Email Bison by Dagster.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
commands.add_typer(alerts.commands, name="alerts")
commands.add_typer(bison.commands, name="bison")
commands.add_typer(clients.commands, name="clients")
commands.add_typer(dagster.commands, name="dagster")
commands.add_typer(keys.commands, name="keys")
commands.add_typer(keys.secret_key_commands, name="secret-key")
commands.add_typer(events.commands, name="events")
commands.add_typer(webhooks.commands, name="webhooks")
commands.add_typer(users.commands, name="users")
up.database_commands.command("dump")(backup.dump)
up.database_commands.command("restore")(backup.restore_dump)
up.database_commands.command("grant-reader")(readers.grant)
up.database_commands.command("revoke-reader")(readers.revoke)
commands.add_typer(up.database_commands, name="db")
commands.command("demo")(demo.run)
commands.command("init")(init.run)
commands.command("up")(up.run)
commands.command("sync")(sync.run)
commands.command("backfill")(backfill.run)
commands.command("recompute")(recompute.run)
commands.command("migrate-from")(migrate_from.run)
commands.command("metrics")(metrics.run)
commands.command("export")(export.run)
commands.command("accuracy")(accuracy.run)
commands.command("summary")(alerts.print_summary)
commands.command("status")(status.run)
commands.command("doctor")(doctor.run)
commands.command("sandbox")(sandbox.run)
commands.command("dashboard")(dashboard.run)
commands.command("gateway")(gateway.run)
commands.command("webhook-secret")(gateway.print_secret)


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(f"kpi_pipeline {version('kpi-pipeline')}")
        raise typer.Exit


@commands.callback()
def _options(
    in_demo: Annotated[
        bool, typer.Option("--demo", help="Work on the database that `kpi demo` left.")
    ] = False,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    if in_demo:
        demo.use_demo_environment(required=True)


def _stop(_number: int, _frame: FrameType | None) -> None:
    """End on SIGTERM as on Ctrl-C: in order, with every child stopped."""
    raise KeyboardInterrupt


def _end_with(error: Exception) -> NoReturn:
    err.print(f"[bold red]Error:[/bold red] {escape(str(error))}", soft_wrap=True)
    sys.exit(1)


def main() -> None:
    """Run the command; a user-correctable error is printed as a sentence, with exit code 1."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        commands()
    except (KpiError, BisonError) as error:
        _end_with(error)
    except (OSError, DBAPIError) as error:
        known = storage_error(error, load_settings())
        if known is None:
            raise
        _end_with(known)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
