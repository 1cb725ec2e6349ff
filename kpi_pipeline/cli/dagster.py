"""`kpi dagster`: Dagster's own database, and its processes one by one."""

import os
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.progress import Progress
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.app import open_app
from kpi_pipeline.cli.common import err, out
from kpi_pipeline.db.server.retry import is_away
from kpi_pipeline.domain.formatting import counted
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.dagster_home import dagster_instance
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.services.single_parts import (
    CODE_SERVER,
    Part,
    part_process,
    require_heartbeat,
)
from kpi_pipeline.settings import load_settings

if TYPE_CHECKING:
    # Imported late below, as it imports Dagster.
    from kpi_pipeline.orchestration.rebuild import Rebuilt

commands = typer.Typer(
    help="Dagster's own database, and its processes one by one.", no_args_is_help=True
)

_CodeServer = Annotated[
    str, typer.Option("--code-server", help="HOST:PORT at which the code server is found.")
]


@commands.callback()
def _group() -> None:
    """Dagster's own database, and its processes one by one."""


@commands.command("code-server")
def code_server(
    listen: Annotated[
        str,
        typer.Option(
            help="HOST:PORT to listen on. It has no login: the network must be private to the "
            "daemon and the page."
        ),
    ] = CODE_SERVER,
) -> None:
    """Run the code server alone: it evaluates schedules and sensors, and carries out the runs.

    For containers; `kpi up` runs it as well. Start one at a time on a database: runs that seem to
    be under way ended with the one before, and are started again.
    """
    _become(Part.CODE_SERVER, listen)


@commands.command("daemon")
def daemon(code_server: _CodeServer = CODE_SERVER) -> None:
    """Run the daemon alone: it starts runs as schedules, sensors and backfills ask for them.

    For containers; `kpi up` runs it as well. A second one on a database ends, and names the first.
    """
    _become(Part.DAEMON, code_server)


@commands.command("page")
def page(code_server: _CodeServer = CODE_SERVER) -> None:
    """Run Dagster's page alone, at KPI_WEB_ADDRESS and KPI_WEB_PORT.

    For containers; `kpi up` runs it as well.
    """
    _become(Part.PAGE, code_server)


@commands.command("alive")
def alive() -> None:
    """Check that a daemon has sent a heartbeat within two minutes, for its container.

    It ends with 0 as well while the database is unreachable: the daemon waits for that.
    """
    require_heartbeat(load_settings())


def _become(part: Part, address: str) -> NoReturn:
    """Replace this process by that of the part: signals and its exit code are its own."""
    process = part_process(load_settings(), part, address)
    os.execve(process.command[0], process.command, process.environment)  # noqa: S606 - our own


@commands.command("rebuild")
def rebuild(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what it would report; write nothing.")
    ] = False,
) -> None:
    """Show the stored rows in Dagster's grid again, after its database was lost or a part of it.

    Reports the three partitions of each row of client_metrics that Dagster shows as missing, with
    their metadata, and adds the clients' partitions. It makes no call to Email Bison and changes no
    row. It can run at any time, beside `kpi up`; after Ctrl-C, run it again: it continues.

    A partition whose last run failed stays red: materialize it. Rows before the grid's first date
    (KPI_FIRST_DATE) and of inactive clients are left out, and so are older facts, which only the
    windows of later dates need.
    """
    from kpi_pipeline.orchestration import rebuild as work

    with (
        ready_databases(load_settings()) as settings,
        open_app(settings) as app,
        dagster_instance(settings) as opened,
        Progress(console=err, disable=not err.is_terminal) as progress,
    ):
        task = progress.add_task("Clients", total=None)
        try:
            done = work.rebuild(
                app,
                opened,
                dry_run=dry_run,
                on_client=lambda number, total: progress.update(
                    task, completed=number, total=total
                ),
            )
        except DBAPIError as error:
            if not is_away(error):
                raise
            raise KpiError(
                "A database became unreachable. What was reported stays: run `kpi dagster rebuild` "
                "again when it is back; it continues."
            ) from None
    for line in lines_of(done, dry_run=dry_run):
        out.print(line, soft_wrap=True)


def lines_of(done: "Rebuilt", *, dry_run: bool) -> list[str]:
    """What was reported, and what was left out and why."""
    by_asset = ", ".join(f"{number:,} of {asset.value}" for asset, number in done.reported.items())
    if done.total:
        what = f"{counted(done.total, 'partition')} of {counted(done.clients, 'client')}"
        lines = [f"{'Would report' if dry_run else 'Reported'} {what}: {by_asset}."]
    else:
        lines = [f"Nothing to report: no partition of {counted(done.rows, 'row')} is missing."]
    left = [
        (done.failed, "partition", "whose last run failed: materialize them; they stay red"),
        (done.in_progress, "partition", "that a run is to fill"),
        (done.outside.too_early, "row", "before the grid's first date (KPI_FIRST_DATE)"),
        (done.outside.inactive, "row", "of inactive clients"),
    ]
    lines += [f"Left out: {counted(number, what)} {why}." for number, what, why in left if number]
    return lines
