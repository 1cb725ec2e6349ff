"""`kpi sync`: one block of clients × dates through Dagster, in this process."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import date

from kpi_pipeline.app import AppContext, open_app
from kpi_pipeline.cli.common import Day, Workspaces, date_of, err, exit_unless, out
from kpi_pipeline.cli.progress import watching_run
from kpi_pipeline.cli.report import SyncReport, print_report
from kpi_pipeline.db.metrics import read_metrics
from kpi_pipeline.db.registry.clients import Client, active_clients, pick_clients
from kpi_pipeline.db.sync_log import read_entries
from kpi_pipeline.domain.calendar import days_between, nightly_dates
from kpi_pipeline.domain.formatting import whose_day
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.dagster_home import dagster_instance
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.settings import load_settings


def run(day: Day = None, workspace: Workspaces = None) -> None:
    """Fetch and compute one block of clients × dates through Dagster, now.

    Without options: all active clients × the last 7 closed days and today, as every night, as far
    back as the partitions reach.
    """
    with ExitStack() as stack:
        settings = stack.enter_context(ready_databases(load_settings()))
        app = stack.enter_context(open_app(settings))
        wanted = [client.workspace for client in clients_to_fill(app, workspace or [])]
        dates = _dates(app, date_of(day))
        dagster = stack.enter_context(dagster_instance(settings))
        # Imported late, as it imports Dagster.
        from kpi_pipeline.services.execution import execute_block

        title = f"{min(dates)} … {max(dates)}"
        started = time.monotonic()
        run_ids = execute_block(
            app,
            dagster,
            wanted,
            dates,
            lambda run_id, clients: watching_run(app.engine, run_id, clients, title),
        )
        with app.engine.connect() as connection:
            report = SyncReport(
                entries=read_entries(connection, run_ids),
                clients=len(wanted),
                seconds=time.monotonic() - started,
                date=max(dates),
                rows=read_metrics(connection, max(dates), wanted),
            )
    print_report(report, out)
    if not report.complete:
        err.print("Correct what is named above, and run the same command again.")
    exit_unless(report.complete)


def clients_to_fill(app: AppContext, workspaces: Sequence[str]) -> Sequence[Client]:
    """The clients of these workspace keys, or all active ones.

    Raises:
        KpiError: for an unknown or inactive client, or if there is no client at all.
    """
    with app.engine.connect() as connection:
        if workspaces:
            clients = pick_clients(connection, dict.fromkeys(workspaces))
        else:
            clients = active_clients(connection)
    if not clients:
        raise KpiError(
            "There are no active clients. Import some with `kpi clients import FILE.csv`."
        )
    return clients


def _dates(app: AppContext, day: date | None) -> list[date]:
    from kpi_pipeline.orchestration.partitions import first_date

    today = app.today()
    named = f"{today}{whose_day(app.day_zone, app.timezone)}"
    first = first_date(app.settings, today)
    if first > today:
        raise KpiError(
            f"There are no dates to fill yet: KPI_FIRST_DATE is {first}, and today is {named}. "
            "Set it to a date in the past."
        )
    if day is None:
        start, end = nightly_dates(today)
        return days_between(max(start, first), end)
    if not first <= day <= today:
        raise KpiError(
            f"{day} is outside the dates from {first} (KPI_FIRST_DATE) to today, {named}. Choose "
            "one of those."
        )
    return [day]
