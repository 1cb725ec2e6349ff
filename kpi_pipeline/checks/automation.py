"""Whether schedules, sensors and daemons do what they are there for, and runs come to an end."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kpi_pipeline.checks.outcome import Check, Offender, Outcome, Severity, outcome
from kpi_pipeline.domain.formatting import duration, listed

# A tick may wait for the one before it, and a daemon for a restart.
_MAY_BE_LATE = timedelta(minutes=5)
# A look of a daemon may take minutes while a large backfill begins.
_MAY_BE_SILENT = timedelta(minutes=15)
SYNC_SCHEDULES = ("daily_kpi_sync", "hourly_refresh")


@dataclass(frozen=True)
class Ticking:
    """A schedule or sensor. `due_since` is when the first tick was due that did not come, or None;
    `on` says whether it is switched on, and is None where Dagster's daemon never saw it.
    """

    name: str
    kind: str
    on: bool | None
    due_since: datetime | None


@dataclass(frozen=True)
class Daemon:
    """A part of Dagster's daemon, and its last sign of life."""

    name: str
    heard_at: datetime | None


@dataclass(frozen=True)
class UnderWay:
    """A run that is under way, and how long it may take."""

    run_id: str
    began_at: datetime
    limit: timedelta


@dataclass(frozen=True)
class Automation:
    """What Dagster knows of what should go on by itself."""

    ticking: Sequence[Ticking]
    daemons: Sequence[Daemon]
    runs: Sequence[UnderWay]


def automation_alive(automation: Automation, now: datetime) -> Outcome:
    """All that should tick has ticked, the daemon lives, and no run takes longer than its limit."""
    offenders = list(offenders_of(automation, now))
    ticking = len(automation.ticking)
    return outcome(
        Check.AUTOMATION_ALIVE,
        offenders,
        well=f"All {ticking} schedules and sensors tick, the daemon lives, and no run takes longer "
        "than it may.",
        trouble=f"Not at work: {listed([str(it['what']) for it in offenders])}. What is off is "
        "switched on on the page Automation; where the daemon is silent, start `kpi up` again (its "
        "log is `logs/daemon.log` under KPI_STATE_DIR); a run that takes too long is ended on its "
        "page.",
        severity=Severity.ERROR,
        numbers={"ticking": ticking, "not_alive": len(offenders)},
    )


def halts_syncs(offenders: Sequence[Mapping[str, object]]) -> bool:
    """Whether a schedule of the syncs is among those that do not do what they should."""
    syncs = {_named("schedule", name) for name in SYNC_SCHEDULES}
    return any(row.get("what") in syncs for row in offenders)


def offenders_of(automation: Automation, now: datetime) -> Iterator[Offender]:
    """Each part that does not do what it should, and for how long it has not."""
    for daemon in automation.daemons:
        if daemon.heard_at is None:
            yield _offender(f"daemon {daemon.name}", "was never heard of", None)
        elif now - daemon.heard_at > _MAY_BE_SILENT:
            silent = now - daemon.heard_at
            yield _offender(f"daemon {daemon.name}", f"is silent for {duration(silent)}", silent)
    for it in automation.ticking:
        what = _named(it.kind, it.name)
        if it.on is False:
            yield _offender(what, "is switched off", None)
        elif it.on is None and it.due_since is None:
            yield _offender(what, "has never ticked: is Dagster's daemon running?", None)
        elif it.due_since is not None and now - it.due_since > _MAY_BE_LATE:
            late = now - it.due_since
            yield _offender(what, f"is late for {duration(late)}", late)
    for run in automation.runs:
        taken = now - run.began_at
        if taken > run.limit + _MAY_BE_LATE:
            problem = f"has gone on for {duration(taken)}; its limit is {duration(run.limit)}"
            yield _offender(f"run {run.run_id[:8]}", problem, taken - run.limit)


def _named(kind: str, name: str) -> str:
    return f"{kind} {name}"


def _offender(what: str, problem: str, late: timedelta | None) -> Offender:
    minutes = None if late is None else int(late.total_seconds()) // 60
    return {"what": what, "problem": problem, "late_minutes": minutes}
