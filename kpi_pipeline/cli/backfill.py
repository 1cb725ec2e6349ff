"""`kpi backfill`: the past of some clients × dates, through a backfill of Dagster's."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from typing import TYPE_CHECKING

from kpi_pipeline.app import AppContext, open_app
from kpi_pipeline.cli.backfill_report import (
    BackfillReport,
    command_for_the_rest,
    print_backfill,
)
from kpi_pipeline.db.clients import active_clients, pick_clients
from kpi_pipeline.db.metrics import read_metrics
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.errors import KpiError
from kpi_pipeline.instances import NO_INSTANCE
from kpi_pipeline.services.backfill_check import check_backfill
from kpi_pipeline.services.backfill_page import (
    BackfillTarget,
    UnknownBackfillError,
    backfill_address,
    launch_backfill,
    read_target,
)
from kpi_pipeline.services.console import err, out
from kpi_pipeline.services.dagster_home import dagster_instance, update_grid
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.services.running_dagster import RunningDagster, running_dagster
from kpi_pipeline.settings import Settings
from kpi_pipeline.sync.scope import KpiAsset

if TYPE_CHECKING:
    from dagster import DagsterInstance


def backfill(
    settings: Settings, first: date, last: date, workspaces: Sequence[str], only: Sequence[str]
) -> bool:
    """Fill `first` to `last` and print the report; return whether every row is written.

    Without workspaces: all active clients; without `only`: all three assets.

    Raises:
        KpiError: for dates outside the grid, an unknown client or asset, or no client at all; or
            if Dagster can't be had, or stops.
    """
    with ExitStack() as stack:
        settings = stack.enter_context(ready_databases(settings))
        app = stack.enter_context(open_app(settings))
        target = _target(app, first, last, workspaces, only)
        update_grid(app, settings)
        instance = stack.enter_context(dagster_instance(settings))
        dagster = stack.enter_context(running_dagster(settings, instance, app.now))
        backfill_id = launch_backfill(dagster.page, target)
        return _see_through(app, instance, dagster, backfill_id, target)


def follow(settings: Settings, backfill_id: str) -> bool:
    """Join a backfill, and go on as `backfill` does.

    Raises:
        UnknownBackfillError: if there is none of this id.
        KpiError: if it is none over clients × dates; or if Dagster can't be had, or stops.
    """
    with ExitStack() as stack:
        settings = stack.enter_context(ready_databases(settings))
        app = stack.enter_context(open_app(settings))
        instance = stack.enter_context(dagster_instance(settings))
        if instance.get_backfill(backfill_id) is None:
            raise UnknownBackfillError(backfill_id)
        dagster = stack.enter_context(running_dagster(settings, instance, app.now))
        target = read_target(dagster.page, backfill_id)
        return _see_through(app, instance, dagster, backfill_id, target)


def _target(
    app: AppContext,
    first: date,
    last: date,
    workspaces: Sequence[str],
    only: Sequence[str],
) -> BackfillTarget:
    """What is asked for, as far as it can be done."""
    known = [step.value for step in KpiAsset]
    if unknown := [asset for asset in only if asset not in known]:
        raise KpiError(
            f"There is no asset {', '.join(unknown)} over clients and dates. --only takes "
            f"{', '.join(known)}."
        )
    assets = [asset for asset in known if asset in only or not only]
    if KpiAsset.FACTS in assets and not app.settings.bison_instances:
        raise KpiError(NO_INSTANCE)
    dates = _dates(app, first, last)
    with app.engine.connect() as connection:
        if workspaces:
            clients = pick_clients(connection, dict.fromkeys(workspaces))
        else:
            clients = active_clients(connection)
    if not clients:
        raise KpiError(
            "There are no active clients. Import some with `kpi clients import FILE.csv`."
        )
    return BackfillTarget(assets, {client.workspace: dates for client in clients})


def _dates(app: AppContext, first: date, last: date) -> list[date]:
    from kpi_pipeline.orchestration.partitions import first_date

    if first > last:
        raise KpiError(f"--from {first} comes after --to {last}. Exchange the two.")
    today = app.today()
    start = first_date(app.settings, today)
    for day in (first, last):
        if not start <= day <= today:
            raise KpiError(
                f"{day} is outside the grid, which runs from {start} (KPI_FIRST_DATE) to today, "
                f"{today}. Choose dates within it."
            )
    return days_between(first, last)


def _see_through(
    app: AppContext,
    instance: "DagsterInstance",
    dagster: RunningDagster,
    backfill_id: str,
    target: BackfillTarget,
) -> bool:
    """Watch the backfill to its end, look what it left, and print that."""
    # Dagster's own modules are imported late: see dagster_home.
    from kpi_pipeline.services.backfill_runs import all_runs, wait_for_second_tries
    from kpi_pipeline.services.backfill_watch import watch_backfill

    joined_at = app.now()
    with _saying_how_to_join(backfill_id, started_here=bool(dagster.children)):
        # In here: whoever reads its id may leave at once.
        err.print(
            f"Backfill {backfill_id}: {target.partitions:,} partitions of {len(target.dates)} "
            f"clients, in {', '.join(target.assets)}; "
            f"{backfill_address(dagster.page, backfill_id)}",
            soft_wrap=True,
        )
        status = watch_backfill(app, instance, dagster, backfill_id)
        if status.failed:
            err.print("Waiting for the second try of what failed …")
        settled = wait_for_second_tries(
            instance,
            backfill_id,
            app.now,
            sensor_since=joined_at if dagster.children else None,
        )
    last = max(max(dates) for dates in target.dates.values())
    with app.engine.connect() as connection:
        check = check_backfill(connection, target, all_runs(instance, backfill_id))
        rows = read_metrics(connection, last, list(target.dates))
    report = BackfillReport(status, check, rows)
    print_backfill(report, out)
    if not settled:
        err.print(
            "Some clients are still being asked for again; look again with "
            f"`kpi backfill --follow {backfill_id}`."
        )
    if check.undone:
        err.print(
            f"Mend what is named above, and run `{command_for_the_rest(check)}`.", soft_wrap=True
        )
    return report.complete


@contextmanager
def _saying_how_to_join(backfill_id: str, *, started_here: bool) -> Iterator[None]:
    """Tell a person who leaves, or whom trouble leaves alone, how to come back."""
    again = f"join it again with `kpi backfill --follow {backfill_id}`"
    if started_here:
        goes_on = (
            "Dagster was started for this command, and stops with it. The backfill goes on when "
            f"Dagster runs again: start `kpi up`, or {again}."
        )
    else:
        goes_on = f"The backfill goes on in Dagster; {again}."
    try:
        yield
    except KeyboardInterrupt:
        err.print(f"\n{goes_on}", soft_wrap=True)
        raise
    except UnknownBackfillError:
        raise
    except KpiError as error:
        raise KpiError(f"{error}\nAs far as Dagster runs, the backfill goes on; {again}.") from None
