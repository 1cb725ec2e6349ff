"""Sources of problems: failing checks, clients whose sync fails, failed runs and ticks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from kpi_pipeline.alerts.problem import Line, Problem
from kpi_pipeline.checks.automation import stops_syncs
from kpi_pipeline.checks.outcome import (
    CLIENT_COLUMNS,
    Check,
    Severity,
    all_unanswered,
    client_of,
)
from kpi_pipeline.db.alerts import SYNC
from kpi_pipeline.db.check_results import StoredOutcome, failing_checks
from kpi_pipeline.db.sync_log import SyncFailure, sync_failures

# Retries resolve most failures within this time: a failed run's clients are synced one by one, a
# killed process is restarted, the next tick finds the database up again.
_RETRY_TIME = timedelta(minutes=5)
# These only say that numbers are old or missing, which a failing sync explains.
_FED_BY_SYNCS = {Check.FRESHNESS, Check.COMPLETE, Check.NO_MISSING_DAYS}
# By then a check run has seen the result of a sync.
_NEXT_CHECK_RUN = timedelta(minutes=20)
# By then the schedules of each hour have ticked: the refresh, and retry_unanswered_checks.
_NEXT_HOUR = timedelta(minutes=75)


@dataclass(frozen=True)
class FailedRun:
    """A run that failed for good without entries in `sync_log`; `what` is what it worked on."""

    run_id: str
    what: str
    at: datetime


@dataclass(frozen=True)
class FailedTick:
    """A schedule or sensor whose last tick failed; `since` is when it did."""

    name: str
    kind: str
    since: datetime


def stored_problems(connection: Connection) -> list[Problem]:
    """The problems that tables hold: failing checks, and clients whose sync fails."""
    checks = failing_checks(connection)
    syncs_stopped = any(
        it.name == Check.AUTOMATION_ALIVE and stops_syncs(it.offenders) for it in checks
    )
    problems = [_of_check(it, syncs_stopped) for it in checks]
    failures = sync_failures(connection)
    return [*problems, *([_of_sync(failures)] if failures else [])]


def dagster_problems(runs: Iterable[FailedRun], ticks: Iterable[FailedTick]) -> list[Problem]:
    """The problems that only Dagster knows: failed runs and ticks."""
    return [*(_of_run(it) for it in runs), *(_of_tick(it) for it in ticks)]


def _follows(check: StoredOutcome, syncs_stopped: bool) -> tuple[str | None, timedelta]:
    """The cause of which the check is a symptom, and for how long it may outlast that cause."""
    if all_unanswered(check.offenders):
        return SYNC, _NEXT_HOUR
    if check.name not in _FED_BY_SYNCS:
        return None, timedelta(0)
    return (Check.AUTOMATION_ALIVE, _NEXT_HOUR) if syncs_stopped else (SYNC, _NEXT_CHECK_RUN)


def _of_check(check: StoredOutcome, syncs_stopped: bool) -> Problem:
    follows, hold = _follows(check, syncs_stopped)
    return Problem(
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
        # An outage passes, and the failing sync that explains this may not have ended yet.
        grace=_NEXT_HOUR if all_unanswered(check.offenders) else timedelta(0),
        follows=follows,
        hold=hold,
    )


def _line_of(row: Mapping[str, object]) -> Line:
    client = client_of(row)
    values = [
        f"{name} {value}"
        for name, value in row.items()
        if name not in CLIENT_COLUMNS and value is not None
    ]
    return Line(", ".join(values), () if client is None else (client,))


def _of_sync(failures: Sequence[SyncFailure]) -> Problem:
    by_reason: dict[str, list[SyncFailure]] = {}
    for failure in failures:
        by_reason.setdefault(_reason(failure), []).append(failure)
    common = sorted(by_reason.items(), key=lambda it: -len(it[1]))
    number = len(failures)
    return Problem(
        cause=SYNC,
        name=SYNC,
        title=f"the sync of {number} client{'s' if number > 1 else ''} fails",
        severity=Severity.ERROR,
        since=min(it.since for it in failures),
        what="Their rows are unchanged. Fix what is named; then re-execute the run on its page, or "
        "materialize the failed partitions on the page of any of the three assets. The next sync "
        "also tries again.",
        clients=tuple(it.workspace for it in failures),
        lines=tuple(Line(why, tuple(it.workspace for it in group)) for why, group in common),
        path=f"/runs/{max(failures, key=lambda it: it.failed_at).run_id}",
        grace=_RETRY_TIME,
    )


def _reason(failure: SyncFailure) -> str:
    """The error without the client's name, which groups the clients of one outage."""
    return failure.error.removeprefix(f"{failure.workspace}: ").replace(failure.workspace, "it")


def _of_run(run: FailedRun) -> Problem:
    return Problem(
        cause=run.what,
        name=run.what,
        title=f"the last run of {run.what} failed",
        severity=Severity.ERROR,
        since=run.at,
        what="It ended before its work was done. Its page says why; fix that, and re-execute it "
        "there.",
        path=f"/runs/{run.run_id}",
        grace=_RETRY_TIME,
    )


def _of_tick(tick: FailedTick) -> Problem:
    return Problem(
        cause=tick.name,
        name=tick.name,
        title=f"the {tick.kind} {tick.name} fails",
        severity=Severity.ERROR,
        since=tick.since,
        what="The runs that it should have launched are missing. Its last tick says why, on the "
        "page Automation.",
        path="/automation",
        grace=_RETRY_TIME,
    )
