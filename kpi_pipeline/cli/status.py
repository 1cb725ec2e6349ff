"""`kpi status`: clients, last syncs, checks, and everything that is wrong, with an exit code."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
from rich import box
from rich.markup import escape
from rich.table import Table
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.app import AppContext
from kpi_pipeline.checks.freshness import FreshnessStatus
from kpi_pipeline.cli.common import err, local_time, opened_app, out
from kpi_pipeline.db.check_results import StoredOutcome
from kpi_pipeline.db.server.engine import reason_of
from kpi_pipeline.db.sync_log import LastSync, SyncOfRun
from kpi_pipeline.domain.formatting import counted, duration, period, whose_day
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.database import embedded_of, storage_error
from kpi_pipeline.services.status import (
    Area,
    Facts,
    Level,
    StatusProblem,
    is_running,
    judge,
    read_facts,
    worst,
)
from kpi_pipeline.settings import Settings, load_settings

_LABELS = {Level.ERROR: "[bold red]ERROR[/]", Level.WARNING: "[yellow]WARN[/]"}


class Format(StrEnum):
    """How `kpi status` prints."""

    TABLE = "table"
    JSON = "json"


@dataclass(frozen=True)
class _Status:
    """What was read, what is wrong, and the zones in which times and days are shown."""

    facts: Facts
    problems: Sequence[StatusProblem]
    timezone: ZoneInfo
    day_zone: ZoneInfo

    @property
    def level(self) -> Level:
        return worst(self.problems)


def run(
    form: Annotated[
        Format, typer.Option("--format", help="json: for programs; docs/monitoring.md defines it.")
    ] = Format.TABLE,
) -> None:
    """Show how fresh each client is, how the last syncs went, and everything that is wrong.

    It judges all checks, the last sync of each client, schedules and sensors, Dagster's daemon, the
    parts of `kpi up`, and whether alerts go out. Mutes change nothing here.

    Exits with code 0 if all is well, 1 if there are only warnings, and 2 if there is an error, also
    when the database cannot be read.
    """
    try:
        _require_installation(load_settings())
        with opened_app() as app:
            level = print_status(app, form)
    except (KpiError, OSError, DBAPIError) as error:
        level = Level.ERROR
        _print_unreadable(_sentence(error), form)
    raise typer.Exit(level.exit_code)


def _sentence(error: KpiError | OSError | DBAPIError) -> str:
    """Why the installation cannot be read.

    Raises:
        OSError: if it is not one of the state folder.
    """
    if isinstance(error, KpiError):
        return str(error)
    if (known := storage_error(error, load_settings())) is not None:
        return str(known)
    if isinstance(error, DBAPIError):
        return f"The database became unreachable: {reason_of(error)}."
    raise error


def _print_unreadable(text: str, form: Format) -> None:
    if form is Format.JSON:
        problem = StatusProblem(Level.ERROR, Area.DATABASE, "installation", text)
        _print_json(_result([problem]))
    else:
        err.print(f"[bold red]Error:[/bold red] {escape(text)}", soft_wrap=True)


def print_status(app: AppContext, form: Format = Format.TABLE) -> Level:
    """Print the status of this installation; return how it is."""
    facts = read_facts(app)
    status = _Status(facts, judge(facts), app.timezone, app.day_zone)
    if form is Format.JSON:
        _print_json(_document(status))
    else:
        _print_clients(status)
        _print_runs(status.facts.runs, status.timezone)
        _print_problems(status)
        _print_summary(status)
    return status.level


def _require_installation(settings: Settings) -> None:
    """Start no database for an installation that does not exist yet.

    Raises:
        KpiError: before the first `kpi up`.
    """
    server = embedded_of(settings)
    if server is not None and not (server.data / "PG_VERSION").exists():
        raise KpiError(
            f"Nothing is set up in {settings.state_dir} yet: `kpi up` creates the database and "
            "starts the pipeline."
        )


def _print_clients(status: _Status) -> None:
    if not status.facts.freshness:
        return
    table = _table("Client", "Data from", "Age", "Last sync")
    now = status.facts.now
    for it in status.facts.freshness:
        age = duration(now - it.as_of) if it.as_of else "–"
        table.add_row(
            escape(it.workspace),
            _data_from(it.as_of, now, status.timezone),
            f"[green]{age}[/]" if it.severity is None else f"[red]{age}, stale[/]",
            _sync(status.facts.last_syncs.get(it.workspace), now),
        )
    out.print(table)


def _data_from(at: datetime | None, now: datetime, zone: ZoneInfo) -> str:
    """The time alone if it is of today: a client is to take one line."""
    if at is None or at.astimezone(zone).date() != now.astimezone(zone).date():
        return local_time(at, zone)
    return f"{at.astimezone(zone):%H:%M %Z}"


def _sync(sync: LastSync | None, now: datetime) -> str:
    if sync is None:
        return "never"
    # A sync that ended while this was read is later than `now`.
    ago = f"{duration(max(now - sync.finished_at, timedelta(0)))} ago"
    return ago if sync.error is None else f"{ago}, [red]failed[/]"


def _print_runs(runs: Sequence[SyncOfRun], zone: ZoneInfo) -> None:
    if not runs:
        return
    table = _table("Last runs", "Took", "Result")
    for it in runs:
        failed = f", [red]{it.n_failed} failed[/]: {escape(it.error or '')}" if it.n_failed else ""
        table.add_row(
            local_time(it.started_at, zone),
            f"{it.duration.total_seconds():.0f} s",
            f"{period(it.first_date, it.last_date)}, {counted(it.api_calls, 'call')}: "
            f"{it.n_ok} ok{failed}",
        )
    out.print(table)


def _print_problems(status: _Status) -> None:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for it in status.problems:
        since = "" if it.since is None else f" Since {local_time(it.since, status.timezone)}."
        text = it.text if it.text.endswith((".", "!", "?")) else f"{it.text}."
        table.add_row(_LABELS[it.level], escape(text + since))
    if status.problems:
        out.print(table)
        out.print()


def _print_summary(status: _Status) -> None:
    facts, zone = status.facts, status.timezone
    if status.day_zone.key != zone.key:
        today = f"{facts.now.astimezone(status.day_zone).date()}{whose_day(status.day_zone, zone)}"
        out.print(f"Today is {today}; times are those of {zone.key}.")
    fresh = sum(it.severity is None for it in facts.freshness)
    out.print(f"{fresh} of {counted(len(facts.freshness), 'client')} fresh.")
    passed = sum(it.since is None for it in facts.checks)
    last = max((it.checked_at for it in facts.checks), default=None)
    checked = f"last checked {local_time(last, zone)}" if last else "never checked"
    out.print(f"Checks: {passed} of {len(facts.checks)} pass, {checked}.")
    running = is_running(facts.dagster, facts.now)
    out.print(f"Dagster's daemon {'is running' if running else 'is not running'}.")
    out.print(_verdict(status.problems))


def _verdict(problems: Sequence[StatusProblem]) -> str:
    errors = sum(it.level is Level.ERROR for it in problems)
    warnings = len(problems) - errors
    if not problems:
        return "[green]All is well.[/]"
    return f"{counted(errors, 'error')}, {counted(warnings, 'warning')}."


def _table(*headings: str) -> Table:
    """A table as wide as the screen: long names and texts take several lines, and none is cut."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _print_json(document: Mapping[str, Any]) -> None:
    # ASCII: a terminal shows names from outside as text.
    typer.echo(json.dumps(document, indent=2, default=datetime.isoformat))


def _document(status: _Status) -> dict[str, Any]:
    """The document that docs/monitoring.md defines; names in it never change their meaning."""
    facts = status.facts
    claim = facts.dagster.claim
    return {
        **_result(status.problems),
        "now": facts.now,
        "timezone": status.timezone.key,
        "day_zone": status.day_zone.key,
        "daemon": {
            "running": is_running(facts.dagster, facts.now),
            "process": None if claim is None else claim.process,
        },
        "clients": [_client(it, facts) for it in facts.freshness],
        "runs": [_run(it) for it in facts.runs],
        "checks": [_check(it) for it in facts.checks],
    }


def _result(problems: Sequence[StatusProblem]) -> dict[str, Any]:
    level = worst(problems)
    return {
        "status": level,
        "exit_code": level.exit_code,
        "problems": [
            {
                "level": it.level,
                "area": it.area,
                "name": it.name,
                "text": it.text,
                "since": it.since,
                "clients": list(it.clients),
            }
            for it in problems
        ],
    }


def _client(it: FreshnessStatus, facts: Facts) -> dict[str, Any]:
    sync = facts.last_syncs.get(it.workspace)
    return {
        "workspace": it.workspace,
        "data_from": it.as_of,
        "age_seconds": None if it.as_of is None else int((facts.now - it.as_of).total_seconds()),
        "severity": it.severity,
        "problems": list(it.problems),
        "last_sync": None
        if sync is None
        else {
            "finished_at": sync.finished_at,
            "calls": sync.api_calls,
            "key_used": sync.key_used,
            "error": sync.error,
        },
    }


def _run(it: SyncOfRun) -> dict[str, Any]:
    return {
        "run_id": it.run_id,
        "started_at": it.started_at,
        "seconds": it.duration.total_seconds(),
        "ok": it.n_ok,
        "failed": it.n_failed,
        "first_date": it.first_date.isoformat(),
        "last_date": it.last_date.isoformat(),
        "calls": it.api_calls,
        "error": it.error,
    }


def _check(it: StoredOutcome) -> dict[str, Any]:
    return {
        "name": it.name,
        "asset": it.asset,
        "passed": it.since is None,
        "severity": it.severity,
        "description": it.description,
        "clients": list(it.clients),
        "checked_at": it.checked_at,
        "failing_since": it.since,
    }
