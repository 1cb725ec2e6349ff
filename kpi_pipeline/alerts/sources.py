"""Where troubles come from: failing checks, clients whose sync fails, and what Dagster tells."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from kpi_pipeline.alerts.problem import Line, Trouble
from kpi_pipeline.checks.automation import halts_syncs
from kpi_pipeline.checks.outcome import (
    CLIENT_COLUMNS,
    Check,
    Severity,
    client_of,
    lacks_only_answers,
)
from kpi_pipeline.db.check_results import StoredOutcome, failing_checks
from kpi_pipeline.db.sync_log import SyncFailure, sync_failures

SYNC = "sync"

# Until then, what was asked for again has mended most of what fails: a failed run's clients one by
# one, a process that died, a tick that found the database restarting.
_MENDS_ITSELF = timedelta(minutes=5)
# These say no more than that numbers are old, or not there.
_FED_BY_SYNCS = {Check.FRESHNESS, Check.COMPLETE, Check.NO_MISSING_DAYS}
# Until then, a round of checks has seen what a sync brought,
_NEXT_ROUND = timedelta(minutes=20)
# and what is done each hour was done: the refresh, and asking for what was not answered.
_NEXT_HOUR = timedelta(minutes=75)


@dataclass(frozen=True)
class FailedRun:
    """A run that failed for good, and left no line for its clients; `what` is what it worked on."""

    run_id: str
    what: str
    at: datetime


@dataclass(frozen=True)
class FailedTick:
    """A schedule or sensor whose last tick failed; `since` is when it did."""

    name: str
    kind: str
    since: datetime


def stored_troubles(connection: Connection) -> list[Trouble]:
    """What the tables know of: failing checks, and clients whose sync fails."""
    checks = failing_checks(connection)
    halted = any(it.name == Check.AUTOMATION_ALIVE and halts_syncs(it.offenders) for it in checks)
    troubles = [_of_check(it, halted) for it in checks]
    failures = sync_failures(connection)
    return [*troubles, *([_of_sync(failures)] if failures else [])]


def dagster_troubles(runs: Iterable[FailedRun], ticks: Iterable[FailedTick]) -> list[Trouble]:
    """What only Dagster knows of: runs and ticks that failed."""
    return [*(_of_run(it) for it in runs), *(_of_tick(it) for it in ticks)]


def _follows(check: StoredOutcome, halted: bool) -> tuple[str | None, timedelta]:
    """The trouble that it only says again, and for how long after the end of that it may last."""
    if lacks_only_answers(check.offenders):
        return SYNC, _NEXT_HOUR
    if check.name not in _FED_BY_SYNCS:
        return None, timedelta(0)
    return (Check.AUTOMATION_ALIVE, _NEXT_HOUR) if halted else (SYNC, _NEXT_ROUND)


def _of_check(check: StoredOutcome, halted: bool) -> Trouble:
    follows, afterwards = _follows(check, halted)
    return Trouble(
        cause=check.name,
        name=check.name,
        title=f"{check.name} of {check.asset}",
        severity=Severity(check.severity),
        since=check.since or check.checked_at,
        what=check.description,
        clients=tuple(check.clients),
        more=check.more,
        lines=tuple(_line_of(row) for row in check.offenders),
        path=f"/assets/{check.asset}?view=checks&checkDetail={check.name}",
        # An outage is over by itself, and the sync that fails in it may be yet to come.
        patience=_NEXT_HOUR if lacks_only_answers(check.offenders) else timedelta(0),
        follows=follows,
        afterwards=afterwards,
    )


def _line_of(row: Mapping[str, object]) -> Line:
    client = client_of(row)
    told = [
        f"{name} {value}"
        for name, value in row.items()
        if name not in CLIENT_COLUMNS and value is not None
    ]
    return Line(", ".join(told), () if client is None else (client,))


def _of_sync(failures: Sequence[SyncFailure]) -> Trouble:
    by_reason: dict[str, list[SyncFailure]] = {}
    for failure in failures:
        by_reason.setdefault(_reason(failure), []).append(failure)
    common = sorted(by_reason.items(), key=lambda it: -len(it[1]))
    number = len(failures)
    return Trouble(
        cause=SYNC,
        name=SYNC,
        title=f"the sync of {number} client{'s' if number > 1 else ''} fails",
        severity=Severity.ERROR,
        since=min(it.since for it in failures),
        what="Their rows stand as they were. Mend what is named, and materialize the partitions "
        "that are red; the hourly refresh tries again by itself.",
        clients=tuple(it.workspace for it in failures),
        lines=tuple(Line(why, tuple(it.workspace for it in group)) for why, group in common),
        path=f"/runs/{max(failures, key=lambda it: it.failed_at).run_id}",
        patience=_MENDS_ITSELF,
    )


def _reason(failure: SyncFailure) -> str:
    """The error without the client's name, so that one outage has one reason."""
    return failure.error.removeprefix(f"{failure.workspace}: ").replace(failure.workspace, "it")


def _of_run(run: FailedRun) -> Trouble:
    return Trouble(
        cause=run.what,
        name=run.what,
        title=f"the last run of {run.what} failed",
        severity=Severity.ERROR,
        since=run.at,
        what="It ended before its work was done. Its page says why; launch it again there once "
        "that is mended.",
        path=f"/runs/{run.run_id}",
        patience=_MENDS_ITSELF,
    )


def _of_tick(tick: FailedTick) -> Trouble:
    return Trouble(
        cause=tick.name,
        name=tick.name,
        title=f"the {tick.kind} {tick.name} fails",
        severity=Severity.ERROR,
        since=tick.since,
        what="What it should have started did not start. Its last tick says why, on the page "
        "Automation.",
        path="/automation",
        patience=_MENDS_ITSELF,
    )
