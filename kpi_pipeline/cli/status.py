"""`kpi status`: freshness, the last syncs, failing checks, and late schedules and sensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from rich.markup import escape
from rich.table import Table

from kpi_pipeline.app import AppContext
from kpi_pipeline.checks.automation import automation_problems
from kpi_pipeline.checks.freshness import Deadlines, FreshnessStatus, freshness_statuses
from kpi_pipeline.cli.common import (
    cell,
    exit_unless,
    local_time,
    opened_app,
    out,
    print_warning,
    print_whole,
)
from kpi_pipeline.db.check_results import StoredOutcome, read_outcomes
from kpi_pipeline.db.sync_log import LastSync, SyncOfRun, last_syncs, read_history
from kpi_pipeline.domain.formatting import counted, duration, whose_day
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.dagster_home import dagster_instance

if TYPE_CHECKING:
    from kpi_pipeline.orchestration.rebuild import GridGap

_RUNS_SHOWN = 5


@dataclass(frozen=True)
class _Status:
    """What the tables hold at one moment."""

    freshness: Sequence[FreshnessStatus]
    syncs: dict[str, LastSync]
    runs: Sequence[SyncOfRun]
    checks: Sequence[StoredOutcome]


def run() -> None:
    """Show how fresh each client is, how the last syncs went, what fails, and what is late.

    It says, too, when Dagster's grid lacks stored rows: see `kpi dagster rebuild`.

    Exits with code 1 when a client is stale, or a schedule, a sensor or Dagster's daemon is late.
    """
    with opened_app() as app:
        exit_unless(print_status(app))


def print_status(app: AppContext) -> bool:
    """Print the status of this installation; return whether nothing is stale or late."""
    now, zone = app.now(), app.timezone
    status = _read(app)
    late, gap = _dagsters_state(app)
    _print_clients(status, now, zone)
    _print_runs(status.runs, zone)
    _print_checks(status.checks, zone)
    if app.day_zone.key != zone.key:
        today = f"{app.today()}{whose_day(app.day_zone, zone)}"
        out.print(f"Today is {today}; times are those of {zone.key}.", soft_wrap=True)
    for line in late:
        out.print(f"[red]✗[/red] {escape(line)}", soft_wrap=True)
    if gap is not None:
        print_warning(str(gap))
    stale = sum(it.severity is not None for it in status.freshness)
    clients = counted(len(status.freshness), "client")
    times = f"{len(late)} late or off" if late else "all schedules and sensors are on time"
    out.print(f"{len(status.freshness) - stale} of {clients} fresh; {times}.", soft_wrap=True)
    return not stale and not late


def _read(app: AppContext) -> _Status:
    deadlines = Deadlines.of(app.settings)
    with app.engine.connect() as connection:
        return _Status(
            freshness_statuses(connection, app.now(), app.day_zone, deadlines),
            last_syncs(connection),
            read_history(connection, _RUNS_SHOWN),
            read_outcomes(connection),
        )


def _dagsters_state(app: AppContext) -> tuple[list[str], "GridGap | None"]:
    """A line for each schedule, sensor or daemon that is late or off; rows missing in the grid."""
    # Imported late, as they import Dagster: the tables above are read without it.
    from kpi_pipeline.orchestration.automation import build_automation
    from kpi_pipeline.orchestration.automation.state import read_automation
    from kpi_pipeline.orchestration.rebuild import grid_gap

    try:
        with dagster_instance(app.settings) as opened:
            found = read_automation(opened, build_automation(app.settings))
            gap = grid_gap(app, opened)
    except KpiError as error:
        return [str(error)], None
    return [f"{it['what']} {it['problem']}" for it in automation_problems(found, app.now())], gap


def _print_clients(status: _Status, now: datetime, zone: ZoneInfo) -> None:
    table = Table("Client", "As of", "Age", "", "Last sync", title="Freshness")
    for it in status.freshness:
        sync = status.syncs.get(it.workspace)
        table.add_row(
            escape(it.workspace),
            local_time(it.as_of, zone),
            duration(now - it.as_of) if it.as_of else "–",
            f"[red]{escape('; '.join(it.problems))}[/red]" if it.problems else "[green]fresh[/]",
            "never" if sync is None else _sync(sync, zone),
        )
    print_whole(table, out)


def _sync(sync: LastSync, zone: ZoneInfo) -> str:
    at = local_time(sync.finished_at, zone)
    if sync.error is not None:
        return f"{at} [red]{escape(sync.error)}[/red]"
    key = f", {sync.key_used} key" if sync.key_used else ""
    return f"{at} ok, {counted(sync.api_calls, 'call')}{key}"


def _print_runs(runs: Sequence[SyncOfRun], zone: ZoneInfo) -> None:
    headings = ("Began", "Took", "", "Ok", "Failed", "Dates", "Calls", "Error")
    table = Table(*headings, title="The last runs")
    for it in runs:
        table.add_row(
            local_time(it.started_at, zone),
            f"{it.duration.total_seconds():.0f} s",
            "[green]ok[/green]" if it.status == "ok" else "[red]error[/red]",
            cell(it.n_ok),
            cell(it.n_failed),
            f"{it.first_date} … {it.last_date}",
            cell(it.api_calls),
            escape(it.error or ""),
        )
    print_whole(table, out)


def _print_checks(checks: Sequence[StoredOutcome], zone: ZoneInfo) -> None:
    failing = [it for it in checks if it.since is not None]
    last = max((it.checked_at for it in checks), default=None)
    done = f"last checked {local_time(last, zone)}" if last else "never checked"
    out.print(f"Checks: {len(checks) - len(failing)} of {len(checks)} pass, {done}.")
    for it in failing:
        since = local_time(it.since, zone)
        out.print(
            f"[red]✗[/red] {it.severity} {it.name} since {since}: {escape(it.description)}",
            soft_wrap=True,
        )
