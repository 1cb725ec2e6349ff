"""The entry of the `kpi` command: one group of commands for each thing that people do."""

import signal
import sys
from datetime import date, datetime
from types import FrameType
from typing import Annotated

import typer
from rich.markup import escape

from kpi_pipeline.bison import BisonError
from kpi_pipeline.cli import alerts, clients, events, gateway, keys, metrics, sandbox, summary
from kpi_pipeline.db.vault import new_secret_key
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.console import err, out
from kpi_pipeline.settings import load_settings

commands = typer.Typer(
    name="kpi",
    help="KPIs of cold-email campaigns, kept current from Email Bison by Dagster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
database = typer.Typer(help="The databases.", no_args_is_help=True)
commands.add_typer(alerts.commands, name="alerts")
commands.add_typer(clients.commands, name="clients")
commands.add_typer(keys.commands, name="keys")
commands.add_typer(events.commands, name="events")
commands.add_typer(database, name="db")

Day = Annotated[
    datetime | None,
    typer.Option("--date", formats=["%Y-%m-%d"], metavar="DATE", help="One date, as YYYY-MM-DD."),
]
Workspaces = Annotated[
    list[str] | None,
    typer.Option("--workspace", "-w", metavar="KEY", help="A client's key; may be repeated."),
]


@commands.callback()
def _options(
    demo: Annotated[
        bool, typer.Option("--demo", help="Work on what `kpi demo` left behind.")
    ] = False,
) -> None:
    if demo:
        from kpi_pipeline.cli.demo import use_demo_environment

        use_demo_environment(required=True)


@commands.command()
def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Stop after the report; fail if any client failed.")
    ] = False,
    days: Annotated[int, typer.Option(min=1, max=300, help="Closed days to fill.")] = 35,
    port: Annotated[
        int | None, typer.Option(help="Port of Dagster's page; unset: KPI_WEB_PORT.")
    ] = None,
) -> None:
    """The whole pipeline at work, against an invented agency of 26 clients.

    Starts PostgreSQL, a local Email Bison and Dagster, imports the clients, fills the last 35 days
    and today through a Dagster run, and stays up until Ctrl-C. It keeps to itself, under
    KPI_STATE_DIR/demo: a configured database or Email Bison is not touched.
    """
    from kpi_pipeline.cli.demo import run_demo, use_demo_environment

    use_demo_environment(required=False)
    _exit_unless(run_demo(load_settings(), once=once, days=days, port=port))


@commands.command()
def up() -> None:
    """Run the pipeline against your Email Bison: the database, Dagster's page and its daemon."""
    from kpi_pipeline.cli.up import run_up

    run_up(load_settings())


@commands.command()
def sync(day: Day = None, workspace: Workspaces = None) -> None:
    """Fetch and compute one block of clients × dates through Dagster, now.

    Without options: all active clients × the last 7 closed days and today, as every night.
    """
    from kpi_pipeline.cli.sync import sync as sync_now

    _exit_unless(sync_now(load_settings(), _date(day), workspace or []))


@commands.command()
def backfill(
    first: Annotated[
        datetime | None,
        typer.Option("--from", formats=["%Y-%m-%d"], metavar="DATE", help="The first date."),
    ] = None,
    last: Annotated[
        datetime | None,
        typer.Option("--to", formats=["%Y-%m-%d"], metavar="DATE", help="The last date."),
    ] = None,
    workspace: Workspaces = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ASSET",
            help="raw_bison_stats, kpi_projections or client_metrics; may be repeated. "
            "Unset: all three.",
        ),
    ] = None,
    follow: Annotated[
        str | None, typer.Option(metavar="ID", help="Join this backfill; launch none.")
    ] = None,
) -> None:
    """Fill the past: clients × dates through a backfill of Dagster's, checked row by row.

    Works in the Dagster that is running, or starts one for as long as it lasts. Ctrl-C leaves the
    backfill at work, and --follow joins it again. Without -w: all active clients.
    """
    from kpi_pipeline.cli.backfill import backfill as backfill_now
    from kpi_pipeline.cli.backfill import follow as follow_now

    if follow is not None:
        if first or last or workspace or only:
            raise KpiError("--follow joins a backfill as it is: name its id, and nothing else.")
        _exit_unless(follow_now(load_settings(), follow))
        return
    if first is None or last is None:
        raise KpiError(
            "Name the dates with --from and --to, as in `kpi backfill --from 2026-01-01 "
            "--to 2026-01-31`, or a backfill to join with --follow."
        )
    days = first.date(), last.date()
    _exit_unless(backfill_now(load_settings(), *days, workspace or [], only or []))


@commands.command("metrics")
def show_metrics(
    day: Day = None,
    workspace: Workspaces = None,
    form: Annotated[
        metrics.Format, typer.Option("--format", help="How to print the rows.")
    ] = metrics.Format.TABLE,
) -> None:
    """Print the rows of client_metrics of one date; without a date: today's."""
    metrics.show(load_settings(), _date(day), workspace or [], form)


@commands.command("summary")
def show_summary(day: Day = None) -> None:
    """Print the daily summary of one date; without a date: yesterday's."""
    summary.show(load_settings(), _date(day))


@commands.command()
def status() -> None:
    """How fresh each client is, how the last syncs went, what fails, and what is late.

    Exits with code 1 when a client is stale, or a schedule, a sensor or Dagster's daemon is late.
    """
    from kpi_pipeline.cli.status import show

    _exit_unless(show(load_settings()))


commands.command("sandbox")(sandbox.run)
commands.command("gateway")(gateway.run)
commands.command("webhook-secret")(gateway.secret)


@database.command("upgrade")
def upgrade() -> None:
    """Bring the KPI tables and Dagster's tables to this version; create them if need be."""
    from kpi_pipeline.services.dagster_home import dagster_instance
    from kpi_pipeline.services.database import databases_to_upgrade

    with databases_to_upgrade(load_settings()) as settings, dagster_instance(settings) as instance:
        instance.upgrade()
    out.print("Both databases are at this version.")


@commands.command("secret-key")
def secret_key() -> None:
    """Print a fresh key for KPI_SECRET_KEY, under which API keys are encrypted."""
    out.print(new_secret_key())


def _date(moment: datetime | None) -> date | None:
    return None if moment is None else moment.date()


def _exit_unless(good: bool) -> None:
    if not good:
        raise typer.Exit(1)


def _stop(_number: int, _frame: FrameType | None) -> None:
    """End on SIGTERM as on Ctrl-C: in order, with every child stopped."""
    raise KeyboardInterrupt


def main() -> None:
    """Run the command; a fault that the user can mend is a sentence, and exit code 1."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        commands()
    except (KpiError, BisonError) as error:
        err.print(f"[bold red]Error:[/bold red] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
