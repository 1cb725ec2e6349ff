"""Whether all is well: what the tables, Dagster and the processes of this machine say, judged.

`kpi status` prints it. `judge` is pure: it makes problems of what was read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from kpi_pipeline.app import AppContext
from kpi_pipeline.checks.alerting import AlertingProblem, alerting_problems
from kpi_pipeline.checks.automation import AutomationState, automation_problems
from kpi_pipeline.checks.freshness import Deadlines, FreshnessStatus, freshness_statuses
from kpi_pipeline.checks.outcome import Severity
from kpi_pipeline.db.check_results import StoredOutcome, read_outcomes
from kpi_pipeline.db.sync_log import (
    LastSync,
    SyncFailure,
    SyncOfRun,
    last_syncs,
    read_history,
    sync_failures,
)
from kpi_pipeline.domain.formatting import duration
from kpi_pipeline.errors import KpiError
from kpi_pipeline.parts import Parts, PartStatus, read_parts
from kpi_pipeline.services.dagster_home import dagster_instance

if TYPE_CHECKING:
    # Imported late below: Dagster takes more than a second.
    from dagster import DagsterInstance

    from kpi_pipeline.orchestration.runtime.claim import Claim

_RUNS = 5
# Dagster's daemons send a heartbeat every 30 s, later on a busy machine.
_HEARTBEAT_MAY_BE_LATE = timedelta(seconds=90)
_START_TAKES = timedelta(minutes=2)


class Level(StrEnum):
    """How an installation is; the order is that of the exit codes 0, 1 and 2."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"

    @property
    def exit_code(self) -> int:
        """The exit code of `kpi status`."""
        return list(Level).index(self)


class Area(StrEnum):
    """What a problem is about."""

    DATABASE = "database"
    CLIENT = "client"
    SYNC = "sync"
    CHECK = "check"
    AUTOMATION = "automation"
    DAEMON = "daemon"
    PART = "part"
    ALERTS = "alerts"
    GRID = "grid"


_LEVELS = {Severity.WARN: Level.WARNING, Severity.ERROR: Level.ERROR}


@dataclass(frozen=True)
class StatusProblem:
    """One thing that is wrong now.

    `name` is what it is about: a client, a check, a schedule. `text` says what is wrong. `since` is
    None where nobody knows.
    """

    level: Level
    area: Area
    name: str
    text: str
    since: datetime | None = None
    clients: Sequence[str] = ()


@dataclass(frozen=True)
class DagsterStatus:
    """What Dagster's storage says.

    `problem` says why it can't be read, and `missing_rows` that its grid lacks rows. `claim` is
    that of the process with Dagster's daemons.
    """

    automation: AutomationState = field(default_factory=lambda: AutomationState((), (), ()))
    claim: "Claim | None" = None
    missing_rows: str | None = None
    problem: str | None = None

    @property
    def has_run(self) -> bool:
        """Whether Dagster's daemon ever worked on this database."""
        return (
            self.claim is not None
            or any(it.last_heartbeat_at is not None for it in self.automation.daemons)
            or any(it.on is not None for it in self.automation.ticks)
        )


@dataclass(frozen=True)
class Facts:
    """What was read at `now`; see `judge`."""

    now: datetime
    freshness: Sequence[FreshnessStatus] = ()
    last_syncs: Mapping[str, LastSync] = field(default_factory=dict)
    failing_syncs: Sequence[SyncFailure] = ()
    runs: Sequence[SyncOfRun] = ()
    checks: Sequence[StoredOutcome] = ()
    alerting: Sequence[AlertingProblem] = ()
    parts: Parts | None = None
    dagster: DagsterStatus = field(default_factory=DagsterStatus)


def read_facts(app: AppContext, opened: "DagsterInstance | None" = None) -> Facts:
    """What the tables, Dagster's storage and the state folder hold now.

    `opened` is Dagster's instance, where the caller has opened it.
    """
    now, settings = app.now(), app.settings
    with app.engine.connect() as connection:
        return Facts(
            now,
            freshness_statuses(connection, now, app.day_zone, Deadlines.of(settings)),
            last_syncs(connection),
            sync_failures(connection),
            read_history(connection, _RUNS),
            read_outcomes(connection),
            alerting_problems(connection, now),
            read_parts(settings.state_dir),
            _read_dagster(app) if opened is None else _dagster_status(app, opened),
        )


def _read_dagster(app: AppContext) -> DagsterStatus:
    try:
        with dagster_instance(app.settings) as opened:
            return _dagster_status(app, opened)
    except KpiError as error:
        return DagsterStatus(problem=str(error))


def _dagster_status(app: AppContext, opened: "DagsterInstance") -> DagsterStatus:
    # Imported late, as they import Dagster: the tables above are read without it.
    from kpi_pipeline.orchestration.automation import build_automation
    from kpi_pipeline.orchestration.automation.state import read_automation
    from kpi_pipeline.orchestration.rebuild import grid_gap
    from kpi_pipeline.orchestration.runtime.claim import read_claim

    gap = grid_gap(app, opened)
    return DagsterStatus(
        read_automation(opened, build_automation(app.settings)),
        read_claim(opened),
        None if gap is None else str(gap),
    )


def judge(facts: Facts) -> list[StatusProblem]:
    """Everything that is wrong, errors first."""
    found = [
        *_of_daemon(facts.dagster, facts.now),
        *_of_parts(facts.parts),
        *_of_alerting(facts),
        *_of_automation(facts.dagster, facts.now),
        *_of_syncs(facts.failing_syncs),
        *_of_checks(facts.checks),
        *_of_clients(facts.freshness),
    ]
    if facts.dagster.has_run and facts.dagster.missing_rows is not None:
        found.append(StatusProblem(Level.WARNING, Area.GRID, "grid", facts.dagster.missing_rows))
    return sorted(found, key=lambda it: -it.level.exit_code)


def worst(problems: Sequence[StatusProblem]) -> Level:
    """The level of an installation with these problems."""
    return max((it.level for it in problems), key=lambda it: it.exit_code, default=Level.OK)


def _of_daemon(dagster: DagsterStatus, now: datetime) -> Iterator[StatusProblem]:
    """Its claim says within twelve seconds that its command is gone, heartbeats say the rest."""
    if dagster.problem is not None:
        yield StatusProblem(Level.ERROR, Area.DATABASE, "Dagster", dagster.problem)
    elif not dagster.has_run:
        text = "Dagster has never run on this database: `kpi up` starts it."
        yield StatusProblem(Level.ERROR, Area.DAEMON, "daemon", text)
    elif not is_running(dagster, now):
        text, since = _why_not(dagster, now)
        text = f"{text}: nothing is synced, checked or alerted. Start `kpi up`."
        yield StatusProblem(Level.ERROR, Area.DAEMON, "daemon", text, since)


def is_running(dagster: DagsterStatus, now: datetime) -> bool:
    """Whether Dagster's daemon runs: its claim is alive, and so are its heartbeats.

    The command that started the daemon renews the claim, also while the daemon is started again.
    """
    claim = dagster.claim
    if claim is not None and not claim.is_alive(now):
        return False
    latest = _last_heartbeat(dagster)
    if latest is not None and now - latest < _HEARTBEAT_MAY_BE_LATE:
        return True
    return claim is not None and now.timestamp() - claim.since < _START_TAKES.total_seconds()


def _last_heartbeat(dagster: DagsterStatus) -> datetime | None:
    beats = [it.last_heartbeat_at for it in dagster.automation.daemons]
    return max((it for it in beats if it is not None), default=None)


def _why_not(dagster: DagsterStatus, now: datetime) -> tuple[str, datetime | None]:
    if dagster.claim is None or dagster.claim.is_alive(now):
        latest = _last_heartbeat(dagster)
        silent = "" if latest is None else f" for {_age(now - latest)}"
        return f"Dagster's daemon has sent no heartbeat{silent}", latest
    at = datetime.fromtimestamp(dagster.claim.renewed_at, UTC)
    if dagster.claim.released:
        return f"Dagster was stopped {_age(now - at)} ago", at
    return f"Dagster's daemon ({dagster.claim.process}) has been silent for {_age(now - at)}", at


def _of_automation(dagster: DagsterStatus, now: datetime) -> Iterator[StatusProblem]:
    if dagster.problem is not None or not dagster.has_run:
        return
    running = is_running(dagster, now)
    for row in automation_problems(dagster.automation, now):
        what, late = str(row["what"]), row.get("late_minutes")
        if not running and late is None and what.startswith("daemon "):
            # Its heartbeats are deleted when the process that it belonged to has ended.
            continue
        since = now - timedelta(minutes=late) if isinstance(late, int) else None
        text = f"{what} {row['problem']}"
        yield StatusProblem(Level.ERROR, Area.AUTOMATION, what.partition(" ")[2], text, since)


def _of_parts(parts: Parts | None) -> Iterator[StatusProblem]:
    if parts is None or not parts.is_supervised:
        return
    for it in parts.parts:
        reason = f": {it.reason}" if it.reason else ""
        if it.status is PartStatus.GIVEN_UP:
            text = (
                f"{it.name} ended too often and is not started again{reason}. Fix the cause, and "
                f"restart `{parts.command}`."
            )
            yield StatusProblem(Level.ERROR, Area.PART, it.key, text, it.since)
        elif it.status is PartStatus.PAUSING:
            text = f"{it.name} ended, and is started again{reason}"
            yield StatusProblem(Level.WARNING, Area.PART, it.key, text, it.since)


def _of_alerting(facts: Facts) -> Iterator[StatusProblem]:
    if facts.dagster.problem is None and not facts.dagster.has_run:
        # Nothing was ever to be evaluated.
        return
    for it in facts.alerting:
        name = it.receiver or "evaluation"
        yield StatusProblem(Level.ERROR, Area.ALERTS, name, it.text, it.since)


def _of_syncs(failures: Sequence[SyncFailure]) -> Iterator[StatusProblem]:
    for it in failures:
        reason = it.error.removeprefix(f"{it.workspace}: ")
        text = f"{it.workspace}: {reason}"
        yield StatusProblem(
            Level.ERROR, Area.SYNC, it.workspace, text, it.since, clients=(it.workspace,)
        )


def _of_checks(checks: Sequence[StoredOutcome]) -> Iterator[StatusProblem]:
    for it in checks:
        if it.since is not None:
            level = _LEVELS[Severity(it.severity)]
            text = f"{it.name}: {it.description}"
            yield StatusProblem(level, Area.CHECK, it.name, text, it.since, it.clients)


def _of_clients(statuses: Sequence[FreshnessStatus]) -> Iterator[StatusProblem]:
    for it in statuses:
        if it.severity is not None:
            text = f"{it.workspace}: {'; '.join(it.problems)}"
            level = _LEVELS[it.severity]
            yield StatusProblem(
                level, Area.CLIENT, it.workspace, text, it.as_of, clients=(it.workspace,)
            )


def _age(passed: timedelta) -> str:
    seconds = int(passed.total_seconds())
    return f"{seconds} s" if seconds < 60 else duration(passed)
