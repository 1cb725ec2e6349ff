"""`kpi sync`: one block through Dagster, in this process."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import date

from kpi_pipeline.app import AppContext, open_app
from kpi_pipeline.cli.report import SyncReport, print_report
from kpi_pipeline.db.clients import active_clients, pick_clients
from kpi_pipeline.db.metrics import read_metrics
from kpi_pipeline.db.sync_log import read_entries
from kpi_pipeline.domain.calendar import days_between, nightly_dates
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.console import err, out
from kpi_pipeline.services.dagster_home import dagster_instance
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.settings import Settings


def sync(settings: Settings, day: date | None, workspaces: Sequence[str]) -> bool:
    """Fetch and compute, print the report; return whether every client is done.

    Without a date: the last 7 closed days and today, as every night, as far as the grid reaches
    back. Without workspaces: all active clients.

    Raises:
        KpiError: for a date outside the grid, an unknown client, or no client at all.
    """
    with ExitStack() as stack:
        settings = stack.enter_context(ready_databases(settings))
        app = stack.enter_context(open_app(settings))
        wanted = _wanted(app, workspaces)
        dates = _dates(app, day)
        instance = stack.enter_context(dagster_instance(settings))
        # Dagster's own modules are imported late: see dagster_home.
        from kpi_pipeline.services.execution import execute_rectangle

        started = time.monotonic()
        run_ids = execute_rectangle(app, instance, wanted, dates)
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
        err.print("Mend what is named above, and run the same command again.")
    return report.complete


def _wanted(app: AppContext, workspaces: Sequence[str]) -> list[str]:
    with app.engine.connect() as connection:
        if workspaces:
            picked = pick_clients(connection, dict.fromkeys(workspaces))
        else:
            picked = active_clients(connection)
    if not picked:
        raise KpiError(
            "There are no active clients. Import some with `kpi clients import FILE.csv`."
        )
    return [client.workspace for client in picked]


def _dates(app: AppContext, day: date | None) -> list[date]:
    from kpi_pipeline.orchestration.partitions import first_date

    today = app.today()
    first = first_date(app.settings, today)
    if first > today:
        raise KpiError(
            f"The grid has no dates yet: KPI_FIRST_DATE is {first}, and today is {today}. "
            "Set it to a date that has passed."
        )
    if day is None:
        start, end = nightly_dates(today)
        return days_between(max(start, first), end)
    if not first <= day <= today:
        raise KpiError(
            f"{day} is outside the grid, which runs from {first} (KPI_FIRST_DATE) to today, "
            f"{today}. Choose a date within it."
        )
    return [day]
