"""The check `automation_alive`: schedules, sensors and daemons are on time, and runs end."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kpi_pipeline.checks.outcome import Check, Outcome, ProblemRow, Severity, outcome
from kpi_pipeline.domain.formatting import duration, listed

# A tick may wait for the one before it, and a daemon for a restart.
_MAY_BE_LATE = timedelta(minutes=5)
# One iteration of a daemon can take minutes while a large backfill starts.
_MAY_BE_SILENT = timedelta(minutes=15)
# One tick can fail for a moment's reason, such as a restart of the database.
MAX_FAILED_TICKS = 3
NIGHTLY_SYNC_SCHEDULE = "daily_kpi_sync"
_FAILED = "failed at its last"
SYNC_SCHEDULES = (NIGHTLY_SYNC_SCHEDULE, "intraday_refresh")


@dataclass(frozen=True)
class TickState:
    """Tick state of a schedule or sensor.

    `due_since` is when the first missed tick was due, or None. `on` says whether it is switched
    on, and is None while Dagster's daemon has not seen it. `failed` counts its last ticks, up to
    MAX_FAILED_TICKS, if all of them failed, `failing_since` is when the first of these was, and
    `may_fail` is how many may.
    """

    name: str
    kind: str
    on: bool | None
    due_since: datetime | None
    failed: int = 0
    failing_since: datetime | None = None
    may_fail: int = MAX_FAILED_TICKS - 1


@dataclass(frozen=True)
class DaemonState:
    """One of Dagster's daemons, and its last heartbeat."""

    name: str
    last_heartbeat_at: datetime | None


@dataclass(frozen=True)
class ActiveRun:
    """A run in progress, and how long it may take."""

    run_id: str
    started_at: datetime
    limit: timedelta


@dataclass(frozen=True)
class AutomationState:
    """What Dagster's storage says of schedules and sensors, daemons, and runs in progress.

    `daemon_since` is when the daemon started, if that is known.
    """

    ticks: Sequence[TickState]
    daemons: Sequence[DaemonState]
    runs: Sequence[ActiveRun]
    daemon_since: datetime | None = None


def automation_alive(automation: AutomationState, now: datetime) -> Outcome:
    """Schedules and sensors are on time and succeed, daemons send heartbeats, runs end in time."""
    problems = list(automation_problems(automation, now))
    number = len(automation.ticks)
    return outcome(
        Check.AUTOMATION_ALIVE,
        problems,
        if_passed=f"All {number} schedules and sensors are on time and succeed, the daemon is "
        "running, and no run exceeds its time limit.",
        if_failed=f"Not working: {listed([str(it['what']) for it in problems])}. Switch on "
        "schedules and sensors on the page Automation, where the last tick of one that fails says "
        "why; restart `kpi up` if the daemon sends no "
        "heartbeat (its log is `logs/daemon.log` under KPI_STATE_DIR); terminate a run that takes "
        "too long on its page.",
        severity=Severity.ERROR,
        numbers={"schedules_and_sensors": number, "problems": len(problems)},
    )


def stops_syncs(problems: Sequence[Mapping[str, object]]) -> bool:
    """Whether a schedule of the syncs is among the problems."""
    syncs = {_named("schedule", name) for name in SYNC_SCHEDULES}
    return any(row.get("what") in syncs for row in problems)


def only_failing_one(problems: Sequence[Mapping[str, object]]) -> str | None:
    """The schedule or sensor whose ticks fail, if nothing else is wrong but ticks that fail."""
    if not all(str(row.get("problem")).startswith(_FAILED) for row in problems):
        return None
    return next((str(row.get("what")).rpartition(" ")[2] for row in problems), None)


def automation_problems(automation: AutomationState, now: datetime) -> Iterator[ProblemRow]:
    """Each part that does not work, and how late it is."""
    for daemon in automation.daemons:
        if daemon.last_heartbeat_at is None:
            yield _row(f"daemon {daemon.name}", "has never sent a heartbeat", None)
        elif now - daemon.last_heartbeat_at > _MAY_BE_SILENT:
            silent = now - daemon.last_heartbeat_at
            problem = f"has sent no heartbeat for {duration(silent)}"
            yield _row(f"daemon {daemon.name}", problem, silent)
    for it in automation.ticks:
        what = _named(it.kind, it.name)
        if it.on is False:
            yield _row(what, "is switched off", None)
        elif it.on is None and it.due_since is None:
            yield _row(what, "has never ticked: is Dagster's daemon running?", None)
        elif it.due_since is not None and _is_late(it.due_since, automation.daemon_since, now):
            late = now - it.due_since
            yield _row(what, f"is {duration(late)} late", late)
        elif it.failing_since is not None and it.failed > it.may_fail:
            failing = now - it.failing_since
            ticks = "tick" if it.failed == 1 else f"{it.failed} ticks"
            yield _row(what, f"{_FAILED} {ticks}, for {duration(failing)}", failing)
    for run in automation.runs:
        taken = now - run.started_at
        if taken > run.limit + _MAY_BE_LATE:
            problem = f"has been running for {duration(taken)}; its limit is {duration(run.limit)}"
            yield _row(f"run {run.run_id[:8]}", problem, taken - run.limit)


def _is_late(due_since: datetime, daemon_since: datetime | None, now: datetime) -> bool:
    """Whether a tick is late; after downtime, the daemon has the same time to make it up."""
    return now - max(due_since, daemon_since or due_since) > _MAY_BE_LATE


def _named(kind: str, name: str) -> str:
    return f"{kind} {name}"


def _row(what: str, problem: str, late: timedelta | None) -> ProblemRow:
    minutes = None if late is None else int(late.total_seconds()) // 60
    return {"what": what, "problem": problem, "late_minutes": minutes}
