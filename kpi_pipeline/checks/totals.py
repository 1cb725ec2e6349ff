"""Whether the facts add up to Email Bison's own totals of the month."""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta

from sqlalchemy import Connection

from kpi_pipeline.checks.outcome import UNANSWERED, Check, Offender, Outcome, Severity, outcome
from kpi_pipeline.db.check_queries.totals import PeriodSums, read_sums
from kpi_pipeline.domain.calendar import first_of_month
from kpi_pipeline.domain.formatting import counted, listed

# Replies are not among them: Email Bison's total counts a contact once, and its days do not.
_COMPARED = ("sent", "interested", "bounced", "unsubscribed")


def period_to_compare(today: date) -> tuple[date, date]:
    """The closed days of yesterday's month: on the first of a month, the whole month before."""
    yesterday = today - timedelta(days=1)
    return first_of_month(yesterday), yesterday


def totals_match_bison(
    connection: Connection,
    told: Mapping[str, Mapping[str, int]],
    unasked: Mapping[str, str],
    unanswered: Mapping[str, str],
    first: date,
    last: date,
) -> Outcome:
    """Compare the sums of `first` … `last` with what Email Bison `told`, by client and count: sent,
    interested, bounced, unsubscribed.

    `unasked` and `unanswered` have a reason for each client whose totals could not be had: for a
    fault of its own, such as a rejected key, or because Email Bison did not answer.
    """
    sums = read_sums(connection, first, last)
    whole = (last - first).days + 1
    offenders = [
        *(row for it in sums for row in _compared(it, told.get(it.workspace), whole)),
        *({**_row(name, "could not be asked"), "why": why} for name, why in unasked.items()),
        *({**_row(name, UNANSWERED), "why": why} for name, why in unanswered.items()),
    ]
    names = list(dict.fromkeys(str(row["workspace"]) for row in offenders))
    alike = sum(it.workspace in told and it.workspace not in names for it in sums)
    there = f"{alike} of {counted(len(sums), 'client')} add up to Email Bison's own totals"
    return outcome(
        Check.TOTALS_MATCH_BISON,
        offenders,
        well=f"{there}, {first} to {last}.",
        trouble=f"{there}, {first} to {last}; not so: {listed(names)}. Days of more than a week "
        "ago may have been revised since they were fetched: `kpi backfill --from "
        f"{first} --to {last} -w CLIENT` fetches them anew; then do this check again. If it "
        "differs still, compare with Email Bison's own page. What is unanswered is asked for again "
        "each hour.",
        severity=Severity.WARN,
        numbers={"clients": len(sums), "alike": alike},
    )


def _compared(sums: PeriodSums, told: Mapping[str, int] | None, whole: int) -> Iterator[Offender]:
    if told is None:
        return
    if sums.days < whole:
        yield _row(sums.workspace, "days", sums.days, whole)
        return
    for name in _COMPARED:
        if sums.sums[name] != told[name]:
            yield _row(sums.workspace, name, sums.sums[name], told[name])


def _row(
    workspace: str, count: str, ours: int | None = None, bison: int | None = None
) -> dict[str, str | int | None]:
    return {
        "workspace": workspace,
        "count": count,
        "ours": ours,
        "bison": bison,
        "why": None,
    }
