"""Sources of problems: failing checks, clients whose sync fails, failed runs and ticks."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache

from sqlalchemy import Connection

from kpi_pipeline.alerts.problem import Line, Problem
from kpi_pipeline.alerts.wording import what_is_wrong
from kpi_pipeline.checks.automation import only_failing_one, stops_syncs
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
from kpi_pipeline.domain.client_problems import sentence_of

# Retries resolve most failures within this time: a failed run's clients are synced one by one, a
# killed process is restarted, the next tick finds the database up again.
_RETRY_TIME = timedelta(minutes=5)
# These only say that numbers are old or missing, which a failing sync explains.
_FED_BY_SYNCS = {Check.FRESHNESS, Check.COMPLETE, Check.NO_MISSING_DAYS}
# By then a check run has seen the result of a sync.
_NEXT_CHECK_RUN = timedelta(minutes=20)
# Words without digits.
_WORD = re.compile(r"[^\W\d]+")
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
    problems = [problem_of_check(it, syncs_stopped) for it in checks]
    failures = sync_failures(connection)
    return [*problems, *([problem_of_syncs(failures)] if failures else [])]


def dagster_problems(runs: Iterable[FailedRun], ticks: Iterable[FailedTick]) -> list[Problem]:
    """The problems that only Dagster knows: failed runs and ticks."""
    return [*(problem_of_run(it) for it in runs), *(problem_of_tick(it) for it in ticks)]


def _follows(check: StoredOutcome, syncs_stopped: bool) -> tuple[str | None, timedelta]:
    """The cause of which the check is a symptom, and for how long it may outlast that cause."""
    if all_unanswered(check.offenders):
        return SYNC, _NEXT_HOUR
    if check.name == Check.AUTOMATION_ALIVE:
        # Its failing ticks are a problem of their own, but for those of the alerts themselves.
        return only_failing_one(check.offenders), _NEXT_CHECK_RUN
    if check.name not in _FED_BY_SYNCS:
        return None, timedelta(0)
    return (Check.AUTOMATION_ALIVE, _NEXT_HOUR) if syncs_stopped else (SYNC, _NEXT_CHECK_RUN)


def problem_of_check(check: StoredOutcome, syncs_stopped: bool) -> Problem:
    """The problem that a check fails; `syncs_stopped` says that no schedule starts syncs."""
    follows, hold = _follows(check, syncs_stopped)
    lines = tuple(_line_of(check, row) for row in check.offenders)
    if check.more or set(check.clients) - {client for it in lines for client in it.clients}:
        # A client beyond the lines that are stored would change its kind whenever it moves there.
        lines = tuple(replace(it, kind="") for it in lines)
    return Problem(
        cause=check.name,
        name=check.name,
        title=f"Email Bison leaves {check.name} unanswered"
        if all_unanswered(check.offenders)
        else what_is_wrong(check.name, check.severity),
        severity=Severity(check.severity),
        since=check.since or check.checked_at,
        what=check.description,
        clients=tuple(check.clients),
        more=check.more,
        lines=lines,
        path=f"/assets/{check.asset}?view=checks&checkDetail={check.name}",
        # An outage passes, and the failing sync that explains this may not have ended yet.
        grace=_NEXT_HOUR if all_unanswered(check.offenders) else timedelta(0),
        follows=follows,
        hold=hold,
    )


def _line_of(check: StoredOutcome, row: Mapping[str, object]) -> Line:
    client = client_of(row)
    clients = () if client is None else (client,)
    text = sentence_of(check.name, row)
    if not text:
        values = {name: value for name, value in row.items() if name not in CLIENT_COLUMNS}
        known = [f"{name} {value}" for name, value in values.items() if value is not None]
        text = ", ".join(known)
    return Line(text, clients, kind_of_row(check.name, row))


def kind_of_row(check: str, row: Mapping[str, object]) -> str:
    """What kind of problem a row of a check names: a client is alerted to each kind once.

    Numbers that change from hour to hour are no part of it.
    """
    match check:
        case Check.PLAUSIBLE:
            return " ".join(_WORD.findall(str(row.get("problem")))[:4])
        case Check.EVENTS_APPLIED:
            return str(row.get("problem"))
        case Check.REGISTRY_MATCHES_BISON:
            return str(row.get("kind"))
        case Check.TOTALS_MATCH_BISON:
            return str(row.get("count")) if row.get("why") else "differs"
        case _:
            return ""


def problem_of_syncs(failures: Sequence[SyncFailure]) -> Problem:
    """The problem that the sync fails for these clients."""
    by_reason: dict[str, list[SyncFailure]] = {}
    for failure in failures:
        by_reason.setdefault(_reason(failure), []).append(failure)
    common = sorted(by_reason.items(), key=lambda it: -len(it[1]))
    one = len(failures) == 1
    return Problem(
        cause=SYNC,
        name=SYNC,
        title=what_is_wrong(SYNC, Severity.ERROR),
        severity=Severity.ERROR,
        since=min(it.since for it in failures),
        what=f"{'Its' if one else 'Their'} rows are unchanged. Fix what is named; then re-execute "
        "the run on its page, or materialize the failed partitions on the page of any of the three "
        "assets. The next sync also tries again.",
        clients=tuple(it.workspace for it in failures),
        lines=tuple(
            Line(why, tuple(it.workspace for it in group), kind_of_error(why))
            for why, group in common
        ),
        path=f"/runs/{max(failures, key=lambda it: it.failed_at).run_id}",
        grace=_RETRY_TIME,
    )


def kind_of_error(error: str) -> str:
    """The kind of a sync's error: errors with the same remedy are of one kind."""
    return next((kind for remedy, kind in _kinds().items() if remedy in error), "other")


@cache
def _kinds() -> Mapping[str, str]:
    """What the text of an error holds, and its kind."""
    # Imported late: Dagster loads this module with the definitions, which need no HTTP client.
    from kpi_pipeline.bison import KeyUse, errors

    return {
        **{errors.for_key(use): "rejected key" for use in KeyUse},
        errors.MISSING_KEY: "no key",
        errors.MISSING_MASTER_KEY: "no key",
        errors.WRONG_REGISTRY: "another workspace",
        errors.SWITCH_TOO_SLOW: "master key",
        errors.KEY_MOVED: "master key",
        errors.GONE: "no workspace",
        errors.RATE_LIMITED: "too many calls",
        errors.UNAVAILABLE: "no answer",
        errors.MALFORMED: "malformed answer",
        errors.ADDRESS: "another address",
        errors.REFUSED: "rejected call",
        "computing its rows failed": "rows",
    }


def _reason(failure: SyncFailure) -> str:
    """The error without the client's name, which groups the clients of one outage."""
    name = rf"(?<![\w/-]){re.escape(failure.workspace)}(?![\w/-])"
    return re.sub(name, "it", failure.error.removeprefix(f"{failure.workspace}: "))


def problem_of_run(run: FailedRun) -> Problem:
    """The problem that a run failed for good."""
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


def problem_of_tick(tick: FailedTick) -> Problem:
    """The problem that a schedule or sensor fails."""
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
