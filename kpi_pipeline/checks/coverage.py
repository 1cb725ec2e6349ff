"""The checks `no_missing_days` and `complete`: no day is missing among facts or metric rows."""

from collections.abc import Sequence
from datetime import date, timedelta

from sqlalchemy import Connection

from kpi_pipeline.checks.outcome import Check, Outcome, ProblemRow, Severity, outcome
from kpi_pipeline.db.check_queries.coverage import FACTS, METRICS, Coverage, Gap, read_coverage
from kpi_pipeline.domain.calendar import first_of_month
from kpi_pipeline.domain.formatting import counted, listed, period
from kpi_pipeline.domain.remedies import fill

# Two whole months: the span that dashboards compare.
DAYS_TO_BE_COMPLETE = 62
_EVER = date(1, 1, 1)


def no_missing_days(connection: Connection, until: date) -> Outcome:
    """Each active client's facts have no gap from its first day to `until`."""
    found = read_coverage(connection, FACTS, _EVER, until)
    return outcome(
        Check.NO_MISSING_DAYS,
        _rows(found.gaps, "nothing was ever fetched"),
        if_passed=f"{_stored(found)}, and no day is missing up to {until}.",
        if_failed=f"{_stored(found)}; {counted(found.missing_days, 'day')} missing "
        f"({_clients(found.gaps)}): every window over them is NULL, not 0. "
        f"{_fill(found.gaps, until)}",
        severity=_severity(found.gaps),
        numbers=_numbers(found),
    )


def complete(connection: Connection, until: date) -> Outcome:
    """Each active client has a row of `client_metrics` for each of the 62 days up to `until`.

    A client's days begin with its first row: one that was added last week needs seven.
    """
    since = until - timedelta(days=DAYS_TO_BE_COMPLETE - 1)
    found = read_coverage(connection, METRICS, since, until)
    due = found.days + found.missing_days
    stored = f"{found.clients_with_days} of {counted(found.clients, 'client')} and {found.days:,}"
    have_rows = f"{stored} of {counted(due, 'day')} have a row, {since} to {until}"
    return outcome(
        Check.COMPLETE,
        _rows(found.gaps, "no row was ever written"),
        if_passed=f"{have_rows}.",
        if_failed=f"{have_rows}; missing: {_clients(found.gaps)}. {_fill(found.gaps, until)}",
        severity=_severity(found.gaps),
        numbers={**_numbers(found), "days_due": due},
    )


def _fill(gaps: Sequence[Gap], until: date) -> str:
    """How to fill the gaps. Clients without any day begin with the month of `until`."""
    first = min((it.first or first_of_month(until) for it in gaps), default=until)
    last = max((it.last or until for it in gaps), default=until)
    return fill(first, last, _names(gaps))


def _rows(gaps: Sequence[Gap], never: str) -> list[ProblemRow]:
    return [
        {
            "workspace": it.workspace,
            "missing": never if it.first is None else period(it.first, it.last),
            "days": it.days,
        }
        for it in _worst_first(gaps)
    ]


def _severity(gaps: Sequence[Gap]) -> Severity:
    """ERROR, unless all that is missing belongs to clients without any data yet."""
    return Severity.ERROR if any(it.first is not None for it in gaps) else Severity.WARN


def _clients(gaps: Sequence[Gap]) -> str:
    return listed(_names(gaps))


def _names(gaps: Sequence[Gap]) -> list[str]:
    return list(dict.fromkeys(it.workspace for it in _worst_first(gaps)))


def _worst_first(gaps: Sequence[Gap]) -> list[Gap]:
    return sorted(gaps, key=lambda it: (-it.days, it.workspace, it.last))


def _stored(found: Coverage) -> str:
    return (
        f"{found.clients_with_days} of {counted(found.clients, 'client')} "
        f"{'has' if found.clients == 1 else 'have'} "
        f"{counted(found.days, 'day')} of facts"
    )


def _numbers(found: Coverage) -> dict[str, int]:
    return {
        "clients": found.clients,
        "clients_with_days": found.clients_with_days,
        "days": found.days,
        "missing_days": found.missing_days,
    }
