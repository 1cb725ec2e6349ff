"""The check `plausible`: impossible numbers are errors, unusual ones are warnings."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import date, timedelta

from sqlalchemy import Connection

from kpi_pipeline.checks.coverage import DAYS_TO_BE_COMPLETE
from kpi_pipeline.checks.outcome import Check, Outcome, ProblemRow, Severity, outcome
from kpi_pipeline.db.check_queries.plausible import (
    AnomalousRow,
    Volume,
    read_anomalies,
    read_volumes,
)
from kpi_pipeline.domain.calendar import first_of_month
from kpi_pipeline.domain.formatting import counted, listed
from kpi_pipeline.domain.remedies import backfill_command

# A reply that is marked again takes a few positive replies back. Sent mail stays sent, except for
# a test campaign that somebody deletes.
_LEADS_TAKEN_BACK = 3
_LEADS_TAKEN_BACK_PERCENT = 10
_MAIL_TAKEN_BACK_PERCENT = 1
# Mailbox providers block senders from about this share on; of fewer emails a share says nothing.
_BOUNCES_PERCENT = 5
_BOUNCES_OF_AT_LEAST = 100

_Found = tuple[Severity, ProblemRow]


def plausible(connection: Connection, today: date, until: date) -> Outcome:
    """No row of the last 62 days contradicts itself or another row, and mail gets through.

    `until` is the last closed day. Volumes are judged up to it, as today has too few of everything.
    """
    since = until - timedelta(days=DAYS_TO_BE_COMPLETE - 1)
    volumes = read_volumes(connection, until)
    found = [
        *_contradictions(read_anomalies(connection, since, today)),
        *_same_totals(volumes),
        *_unusual_volumes(volumes),
    ]
    found.sort(key=lambda it: it[0] is Severity.WARN)
    names = list(dict.fromkeys(str(row["workspace"]) for _, row in found))
    wrong = [row for severity, row in found if severity is Severity.ERROR]
    errors = len(wrong)
    what_to_do = _if_errors(wrong, until, today) if errors else _if_warnings(len(names))
    return outcome(
        Check.PLAUSIBLE,
        [row for _, row in found],
        if_passed=f"The rows of {since} to {today} are consistent, and mail gets through.",
        if_failed=f"{counted(len(found) - errors, 'warning')}, {counted(errors, 'error')}: "
        f"{listed(names)}. {what_to_do}",
        severity=Severity.ERROR if errors else Severity.WARN,
        numbers={"errors": errors, "warnings": len(found) - errors},
    )


def _if_errors(rows: Sequence[ProblemRow], until: date, today: date) -> str:
    """What to do: the rows of these months come from the source again."""
    dates = [date.fromisoformat(str(row["date"])) for row in rows if row["date"]]
    first = first_of_month(min(dates, default=until))
    names = list(dict.fromkeys(str(row["workspace"]) for row in rows))
    return (
        "Compare with Email Bison's own page. If it differs, `kpi keys check` shows whether each "
        f"key belongs to its client, and `{backfill_command(first, today, names)}` fetches and "
        "computes the rows again."
    )


def _if_warnings(clients: int) -> str:
    whose = "this client" if clients == 1 else "these clients"
    return f"The rows are right: check the campaigns of {whose} in Email Bison."


def _contradictions(rows: Sequence[AnomalousRow]) -> Iterator[_Found]:
    for row in rows:
        if row.negative:
            yield _error(row, "a number is below 0")
        if row.not_nested:
            yield _error(row, "7 days hold more than 14, or 14 more than 30")
        if _fell(row.emails_before, row.emails, 0, _MAIL_TAKEN_BACK_PERCENT):
            yield _error(
                row, f"the month's emails sent fell from {row.emails_before:,} to {row.emails:,}"
            )
        if _fell(row.replies_before, row.replies, _LEADS_TAKEN_BACK, _LEADS_TAKEN_BACK_PERCENT):
            fall = f"from {row.replies_before:,} to {row.replies:,}"
            yield _error(row, f"the month's positive replies fell {fall}")


def _fell(before: int | None, after: int | None, by: int, percent: int) -> bool:
    """Whether a month's sum fell by more than revisions explain."""
    if before is None or after is None:
        return False
    return before - after > max(by, before * percent / 100)


def _error(row: AnomalousRow, problem: str) -> _Found:
    found = {"workspace": row.workspace, "date": row.metric_date.isoformat(), "problem": problem}
    return Severity.ERROR, found


def _same_totals(volumes: Sequence[Volume]) -> Iterator[_Found]:
    """Clients with the same five totals in 30 days: one of them shows another's numbers."""
    groups: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for it in volumes:
        answers = (it.replied, it.interested, it.bounced, it.unsubscribed)
        # Two clients that send up to the same limit, without a reply yet, may well be equal.
        if it.sent > 0 and any(answers):
            groups[it.days, it.sent, *answers].append(it.workspace)
    for (_, sent, *_), names in groups.items():
        for name in names if len(names) > 1 else ():
            others = listed([it for it in names if it != name], 3)
            numbers = f"the same numbers of emails sent ({sent:,}), replies and bounces"
            problem = f"{numbers} in 30 days as {others}"
            yield Severity.ERROR, {"workspace": name, "date": None, "problem": problem}


def _unusual_volumes(volumes: Sequence[Volume]) -> Iterator[_Found]:
    for it in volumes:
        sent, bounced = it.sent_of_week, it.bounced_of_week
        if sent >= _BOUNCES_OF_AT_LEAST and bounced * 100 > sent * _BOUNCES_PERCENT:
            share = f"{bounced * 100 / sent:.1f} % of {sent:,} emails sent bounced in 7 days"
            yield Severity.WARN, {"workspace": it.workspace, "date": None, "problem": share}
        if sent > 0 and it.interested_of_week == 0 and it.days_of_week == 7:
            problem = f"no positive reply in 7 days, with {counted(sent, 'email')} sent"
            yield Severity.WARN, {"workspace": it.workspace, "date": None, "problem": problem}
