"""`kpi sync`: one rectangle through Dagster, in this process."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import date

from kpi_pipeline.business_days import days_between, nightly_dates
from kpi_pipeline.cli.console import err, out
from kpi_pipeline.cli.dagster_home import dagster_instance
from kpi_pipeline.cli.database import ready_databases
from kpi_pipeline.cli.report import SyncReport, print_report
from kpi_pipeline.deployment import Deployment, open_deployment
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import Settings
from kpi_pipeline.warehouse.clients import active_clients, pick_clients
from kpi_pipeline.warehouse.metric_view import read_metrics
from kpi_pipeline.warehouse.sync_log import read_entries


def sync(settings: Settings, day: date | None, workspaces: Sequence[str]) -> bool:
    """Fetch and compute, print the report; return whether every client is done.

    Without a date: the last 7 closed days and today, as every night, as far as the grid reaches
    back. Without workspaces: all active clients.

    Raises:
        KpiError: for a date outside the grid, an unknown client, or no client at all.
    """
    with ExitStack() as stack:
        settings = stack.enter_context(ready_databases(settings))
        deployment = stack.enter_context(open_deployment(settings))
        wanted = _wanted(deployment, workspaces)
        dates = _dates(deployment, day)
        instance = stack.enter_context(dagster_instance(settings))
        # Dagster's own modules are imported late: see dagster_home.
        from kpi_pipeline.cli.execution import execute_rectangle

        started = time.monotonic()
        run_ids = execute_rectangle(deployment, instance, wanted, dates)
        with deployment.engine.connect() as connection:
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


def _wanted(deployment: Deployment, workspaces: Sequence[str]) -> list[str]:
    with deployment.engine.connect() as connection:
        if workspaces:
            picked = pick_clients(connection, dict.fromkeys(workspaces))
        else:
            picked = active_clients(connection)
    if not picked:
        raise KpiError(
            "There are no active clients. Import some with `kpi clients import FILE.csv`."
        )
    return [client.workspace for client in picked]


def _dates(deployment: Deployment, day: date | None) -> list[date]:
    from kpi_pipeline.partitions import first_date

    today = deployment.today()
    first = first_date(deployment.settings, today)
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
