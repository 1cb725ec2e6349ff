"""`kpi status`: how fresh each client is, how the last syncs went, what fails, and what is late."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from rich.markup import escape
from rich.table import Table

from kpi_pipeline.app import AppContext, open_app
from kpi_pipeline.checks.automation import offenders_of
from kpi_pipeline.checks.freshness import Deadlines, Standing, read_standings
from kpi_pipeline.cli.tables import cell, print_whole
from kpi_pipeline.db.check_results import StoredOutcome, read_outcomes
from kpi_pipeline.db.sync_log import LastSync, SyncOfRun, last_syncs, read_history
from kpi_pipeline.domain.formatting import counted, duration
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.console import out
from kpi_pipeline.services.dagster_home import dagster_instance
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.settings import Settings

_RUNS_SHOWN = 5


@dataclass(frozen=True)
class _Status:
    """What the tables hold, read at one moment."""

    standings: Sequence[Standing]
    syncs: dict[str, LastSync]
    runs: Sequence[SyncOfRun]
    checks: Sequence[StoredOutcome]


def show(settings: Settings) -> bool:
    """Print it all; return whether nothing is stale or late."""
    with ExitStack() as stack:
        settings = stack.enter_context(ready_databases(settings, dagster_too=False))
        app = stack.enter_context(open_app(settings))
        return report(app)


def report(app: AppContext) -> bool:
    """The same for an app that is open already."""
    now, zone = app.now(), app.timezone
    status = _read(app)
    late = _late(app)
    _print_clients(status, now, zone)
    _print_runs(status.runs, zone)
    _print_checks(status.checks, zone)
    for line in late:
        out.print(f"[red]✗[/red] {escape(line)}", soft_wrap=True)
    stale = sum(it.severity is not None for it in status.standings)
    clients = counted(len(status.standings), "client")
    alive = f"{counted(len(late), 'thing')} late or off" if late else "all that should tick ticks"
    out.print(f"{len(status.standings) - stale} of {clients} fresh; {alive}.", soft_wrap=True)
    return not stale and not late


def _read(app: AppContext) -> _Status:
    deadlines = Deadlines.of(app.settings)
    with app.engine.connect() as connection:
        return _Status(
            read_standings(connection, app.now(), app.timezone, deadlines),
            last_syncs(connection),
            read_history(connection, _RUNS_SHOWN),
            read_outcomes(connection),
        )


def _late(app: AppContext) -> list[str]:
    """What does not go on by itself as it should, from Dagster's database."""
    # Imported late, with Dagster and all: the tables above are read without it.
    from kpi_pipeline.orchestration.automation import build_automation
    from kpi_pipeline.orchestration.automation.alive import read_automation

    try:
        with dagster_instance(app.settings) as instance:
            found = read_automation(instance, build_automation(app.settings))
    except KpiError as error:
        return [str(error)]
    return [f"{it['what']} {it['problem']}" for it in offenders_of(found, app.now())]


def _print_clients(status: _Status, now: datetime, zone: ZoneInfo) -> None:
    table = Table("Client", "As of", "Age", "", "Last sync", title="Freshness")
    for it in status.standings:
        sync = status.syncs.get(it.workspace)
        table.add_row(
            escape(it.workspace),
            _local(it.as_of, zone),
            duration(now - it.as_of) if it.as_of else "–",
            f"[red]{escape('; '.join(it.problems))}[/red]" if it.problems else "[green]fresh[/]",
            "never" if sync is None else _sync(sync, zone),
        )
    print_whole(table, out)


def _sync(sync: LastSync, zone: ZoneInfo) -> str:
    at = _local(sync.finished_at, zone)
    if sync.error is not None:
        return f"{at} [red]{escape(sync.error)}[/red]"
    key = f", {sync.key_used} key" if sync.key_used else ""
    return f"{at} ok, {counted(sync.api_calls, 'call')}{key}"


def _print_runs(runs: Sequence[SyncOfRun], zone: ZoneInfo) -> None:
    headings = ("Began", "Took", "", "Ok", "Failed", "Dates", "Calls", "Error")
    table = Table(*headings, title="The last runs")
    for it in runs:
        table.add_row(
            _local(it.started_at, zone),
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
    done = f"checked last {_local(last, zone)}" if last else "never checked"
    out.print(f"Checks: {len(checks) - len(failing)} of {len(checks)} pass, {done}.")
    for it in failing:
        since = _local(it.since, zone)
        out.print(
            f"[red]✗[/red] {it.severity} {it.name} since {since}: {escape(it.description)}",
            soft_wrap=True,
        )


def _local(instant: datetime | None, zone: ZoneInfo) -> str:
    return "–" if instant is None else f"{instant.astimezone(zone):%Y-%m-%d %H:%M}"
