"""Whether every day is there that should be: of the facts, and of the rows that people read."""

from collections.abc import Sequence
from datetime import date, timedelta

from sqlalchemy import Connection

from kpi_pipeline.checks.outcome import Check, Offender, Outcome, Severity, outcome
from kpi_pipeline.db.check_queries.coverage import FACTS, METRICS, Coverage, Gap, read_coverage
from kpi_pipeline.domain.formatting import counted, listed, period

# Two whole months: what a reader compares.
DAYS_TO_BE_COMPLETE = 62
_EVER = date(1, 1, 1)


def no_missing_days(connection: Connection, until: date) -> Outcome:
    """Each active client's facts from its first day to `until`, without a gap."""
    found = read_coverage(connection, FACTS, _EVER, until)
    return outcome(
        Check.NO_MISSING_DAYS,
        _offenders(found.gaps, "nothing was ever fetched"),
        well=f"{_there(found)}, and no day is missing up to {until}.",
        trouble=f"{_there(found)}; {counted(found.missing_days, 'day')} missing "
        f"({_of(found.gaps)}): every window over them is NULL, not 0. {_FILL}",
        severity=_severity(found.gaps),
        numbers=_numbers(found),
    )


def complete(connection: Connection, until: date) -> Outcome:
    """A row of `client_metrics` for each active client and day of the last 62, up to `until`.

    A client's days begin with its first row: of one that was added last week, seven are due.
    """
    since = until - timedelta(days=DAYS_TO_BE_COMPLETE - 1)
    found = read_coverage(connection, METRICS, since, until)
    due = found.days + found.missing_days
    there = f"{found.clients_with_days} of {counted(found.clients, 'client')} and {found.days:,} of"
    return outcome(
        Check.COMPLETE,
        _offenders(found.gaps, "no row was ever written"),
        well=f"{there} {counted(due, 'day')} have a row, {since} to {until}.",
        trouble=f"{there} {counted(due, 'day')} have a row, {since} to {until}; missing: "
        f"{_of(found.gaps)}. {_FILL}",
        severity=_severity(found.gaps),
        numbers={**_numbers(found), "days_due": due},
    )


_FILL = (
    "Fill them with `kpi backfill --from DATE --to DATE -w CLIENT`, or choose the missing "
    "partitions on the asset's page and materialize them."
)


def _offenders(gaps: Sequence[Gap], never: str) -> list[Offender]:
    return [
        {
            "workspace": it.workspace,
            "missing": never if it.first is None else period(it.first, it.last),
            "days": it.days,
        }
        for it in _worst_first(gaps)
    ]


def _severity(gaps: Sequence[Gap]) -> Severity:
    """A client that was only just added is no error."""
    return Severity.ERROR if any(it.first is not None for it in gaps) else Severity.WARN


def _of(gaps: Sequence[Gap]) -> str:
    return listed(list(dict.fromkeys(it.workspace for it in _worst_first(gaps))))


def _worst_first(gaps: Sequence[Gap]) -> list[Gap]:
    return sorted(gaps, key=lambda it: (-it.days, it.workspace, it.last))


def _there(found: Coverage) -> str:
    return (
        f"{found.clients_with_days} of {counted(found.clients, 'client')} have "
        f"{counted(found.days, 'day')} of facts"
    )


def _numbers(found: Coverage) -> dict[str, int]:
    return {
        "clients": found.clients,
        "clients_with_days": found.clients_with_days,
        "days": found.days,
        "missing_days": found.missing_days,
    }
