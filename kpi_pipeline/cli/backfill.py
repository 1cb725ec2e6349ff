"""`kpi backfill`: fill past dates with a backfill of Dagster's, and check the rows that it left."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from kpi_pipeline.app import AppContext, open_app
from kpi_pipeline.cli.common import Workspaces, err, exit_unless, out
from kpi_pipeline.cli.progress import BackfillProgress
from kpi_pipeline.cli.report import SyncReport, print_report
from kpi_pipeline.cli.sync import clients_to_fill
from kpi_pipeline.db.metrics import MetricRow, read_metrics
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.domain.formatting import listed
from kpi_pipeline.domain.remedies import backfill_command
from kpi_pipeline.errors import KpiError
from kpi_pipeline.instances import NO_INSTANCE
from kpi_pipeline.services.backfill_check import (
    BackfillCheck,
    check_backfill,
    format_ranges,
    of_active_clients,
)
from kpi_pipeline.services.backfills import (
    BackfillStatus,
    BackfillTarget,
    UnknownBackfillError,
    all_runs,
    backfill_address,
    launch_backfill,
    read_target,
    wait_for_retries,
    watch_backfill,
)
from kpi_pipeline.services.dagster_home import dagster_instance, update_grid
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.services.running_dagster import RunningDagster, running_dagster
from kpi_pipeline.settings import load_settings
from kpi_pipeline.sync.scope import KpiAsset

if TYPE_CHECKING:
    from dagster import DagsterInstance

_CLIENTS_SHOWN = 10


def run(
    first: Annotated[
        datetime | None,
        typer.Option("--from", formats=["%Y-%m-%d"], metavar="DATE", help="The first date."),
    ] = None,
    last: Annotated[
        datetime | None,
        typer.Option("--to", formats=["%Y-%m-%d"], metavar="DATE", help="The last date."),
    ] = None,
    workspace: Workspaces = None,
    follow: Annotated[
        str | None, typer.Option(metavar="ID", help="Follow this backfill; launch none.")
    ] = None,
) -> None:
    """Fill past dates with a backfill of Dagster's, and check each row.

    Uses the running Dagster, or starts one until the command ends. The backfill continues after
    Ctrl-C; --follow joins it again. Without -w: all active clients.
    """
    if follow is not None:
        if first or last or workspace:
            raise KpiError("--follow takes the id of a backfill, and no other option beside it.")
        exit_unless(_follow(follow))
        return
    if first is None or last is None:
        raise KpiError(
            "Give the dates with --from and --to, as in `kpi backfill --from 2026-01-01 "
            "--to 2026-01-31`, or the id of a backfill with --follow."
        )
    exit_unless(_fill(first.date(), last.date(), workspace or []))


def _fill(first: date, last: date, workspaces: Sequence[str]) -> bool:
    """Launch a backfill and follow it; return whether every row is written."""
    with ExitStack() as stack:
        settings = stack.enter_context(ready_databases(load_settings()))
        app = stack.enter_context(open_app(settings))
        target = _target(app, first, last, workspaces)
        update_grid(app, settings)
        opened = stack.enter_context(dagster_instance(settings))
        dagster = stack.enter_context(running_dagster(settings, opened, app.now, err.print))
        backfill_id = launch_backfill(dagster.page, target)
        return _see_through(app, opened, dagster, backfill_id, target)


def _follow(backfill_id: str) -> bool:
    """Follow a backfill that was launched before; return whether every row is written."""
    with ExitStack() as stack:
        settings = stack.enter_context(ready_databases(load_settings()))
        app = stack.enter_context(open_app(settings))
        opened = stack.enter_context(dagster_instance(settings))
        if opened.get_backfill(backfill_id) is None:
            raise UnknownBackfillError(backfill_id)
        dagster = stack.enter_context(running_dagster(settings, opened, app.now, err.print))
        target = read_target(dagster.page, backfill_id)
        return _see_through(app, opened, dagster, backfill_id, target)


def _target(app: AppContext, first: date, last: date, workspaces: Sequence[str]) -> BackfillTarget:
    if not app.settings.bison_instances:
        raise KpiError(NO_INSTANCE)
    dates = _dates(app, first, last)
    clients = clients_to_fill(app, workspaces)
    return BackfillTarget({client.workspace: dates for client in clients})


def _dates(app: AppContext, first: date, last: date) -> list[date]:
    # Imported late, as it imports Dagster.
    from kpi_pipeline.orchestration.partitions import first_date

    if first > last:
        raise KpiError(f"--from {first} is after --to {last}. Exchange the two.")
    today = app.today()
    start = first_date(app.settings, today)
    for day in (first, last):
        if not start <= day <= today:
            raise KpiError(
                f"{day} is outside the dates from {start} (KPI_FIRST_DATE) to today, {today}. "
                "Choose some of those."
            )
    return days_between(first, last)


def _see_through(
    app: AppContext,
    opened: "DagsterInstance",
    dagster: RunningDagster,
    backfill_id: str,
    target: BackfillTarget,
) -> bool:
    """Watch the backfill to its end, check the tables, and print the report."""
    joined_at = app.now()
    with _explaining_how_to_rejoin(backfill_id, started_here=bool(dagster.children)):
        # Within the block: a user who has read the id may leave at once.
        err.print(
            f"Backfill {backfill_id}: {target.partitions:,} partitions of {len(target.dates)} "
            f"clients; {backfill_address(dagster.page, backfill_id)}",
            soft_wrap=True,
        )
        with BackfillProgress(err) as progress:
            status = watch_backfill(app, opened, dagster, backfill_id, progress.show)
        if status.failed:
            err.print("Waiting for the runs that retry what failed …")
        settled = wait_for_retries(
            opened,
            backfill_id,
            app.now,
            sensor_since=joined_at if dagster.children else None,
        )
    with app.engine.connect() as connection:
        fillable = of_active_clients(connection, target)
        if left_out := sorted(target.dates.keys() - fillable.dates.keys()):
            err.print(f"Left out, as they are inactive now: {listed(left_out, _CLIENTS_SHOWN)}.")
        if not fillable.dates:
            return True
        target = fillable
        check = check_backfill(connection, target, all_runs(opened, backfill_id))
        rows = read_metrics(connection, _last_date(target), list(target.dates))
    report = BackfillReport(status, check, rows)
    print_backfill(report, out)
    if not settled:
        err.print(
            "Some clients are still being retried; check again with "
            f"`kpi backfill --follow {backfill_id}`."
        )
    if check.unfinished:
        err.print(
            f"Correct what is named above, and run `{command_for_the_rest(check)}`.",
            soft_wrap=True,
        )
    return report.complete


@contextmanager
def _explaining_how_to_rejoin(backfill_id: str, *, started_here: bool) -> Iterator[None]:
    """On Ctrl-C or an error, say that the backfill continues and how to follow it again."""
    again = f"follow it again with `kpi backfill --follow {backfill_id}`"
    if started_here:
        continues = (
            "Dagster was started for this command, and stops with it. The backfill continues when "
            f"Dagster runs again: start `kpi up`, or {again}."
        )
    else:
        continues = f"The backfill continues in Dagster; {again}."
    try:
        yield
    except KeyboardInterrupt:
        err.print(f"\n{continues}", soft_wrap=True)
        raise
    except UnknownBackfillError:
        raise
    except KpiError as error:
        raise KpiError(
            f"{error}\nThe backfill continues while Dagster is running; {again}."
        ) from None


@dataclass(frozen=True)
class BackfillReport:
    """How a backfill ended, what the tables lack, and the rows of its last date."""

    status: BackfillStatus
    check: BackfillCheck
    rows: Sequence[MetricRow]

    @property
    def complete(self) -> bool:
        """Whether it ran to its end, and every row of every client is written."""
        return not self.status.broken_off and not self.check.unfinished


def print_backfill(report: BackfillReport, console: Console) -> None:
    """Print the report: clients, API calls, rows, gaps, and the best clients."""
    check, status = report.check, report.status
    ended_at = status.ended_at or status.launched_at
    sync_report = SyncReport(
        entries=check.entries,
        clients=len(check.target.dates),
        seconds=(ended_at - status.launched_at).total_seconds(),
        date=_last_date(check.target),
        # Clients without a number have no rank.
        rows=[row for row in report.rows if row.as_of is not None],
    )
    print_report(sync_report, console)
    for line in _lines(report):
        console.print(line, markup=False, soft_wrap=True)


def command_for_the_rest(check: BackfillCheck) -> str:
    """The command that fills what is unfinished: those clients, or all where they are many."""
    dates = [day for workspace in check.unfinished for day in check.target.dates[workspace]]
    return backfill_command(min(dates), max(dates), check.unfinished)


def _lines(report: BackfillReport) -> list[str]:
    check, status = report.check, report.status
    lines = []
    if status.name == "CANCELED":
        lines.append("The backfill was canceled.")
    elif status.name == "FAILED":
        lines.append(f"Dagster gave the backfill up: {status.error or 'no reason is known'}")
    if check.unreached:
        lines.append(f"Not reached: {listed(check.unreached, _CLIENTS_SHOWN)}.")
    counts = ", ".join(f"{check.rows(table):,} in {table}" for table in KpiAsset)
    if not check.gaps:
        # A client that failed keeps the rows that it had before.
        old = "; the clients named above keep their earlier rows" if check.unfinished else ""
        lines.append(f"No row is missing: {counts}{old}.")
        return lines
    wanted = check.target.partitions
    lines.append(f"Rows are missing: of {wanted:,} in each table there are {counts}:")
    for workspace, days in list(check.gaps.items())[:_CLIENTS_SHOWN]:
        lines.append(f"  {workspace}: {format_ranges(days)}")
    if len(check.gaps) > _CLIENTS_SHOWN:
        lines.append(f"  and {len(check.gaps) - _CLIENTS_SHOWN} more clients")
    return lines


def _last_date(target: BackfillTarget) -> date:
    return max(max(dates) for dates in target.dates.values())
