"""Numbers that can't be, or that a person should look at."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import date, timedelta

from sqlalchemy import Connection

from kpi_pipeline.checks.coverage import DAYS_TO_BE_COMPLETE
from kpi_pipeline.checks.outcome import Check, Offender, Outcome, Severity, outcome
from kpi_pipeline.db.check_queries.plausible import OddRow, Volume, read_odd_rows, read_volumes
from kpi_pipeline.domain.formatting import counted, listed

# What is marked anew takes a few leads back. Mail that was sent stays sent, but for a test campaign
# that somebody deletes.
_LEADS_TAKEN_BACK = 3
_LEADS_TAKEN_BACK_PERCENT = 10
_MAIL_TAKEN_BACK_PERCENT = 1
# Mailbox providers block senders from about there; below so many mails a share says nothing.
_BOUNCES_PERCENT = 5
_BOUNCES_OF_AT_LEAST = 100

_Found = tuple[Severity, Offender]


def plausible(connection: Connection, today: date, until: date) -> Outcome:
    """No row of the last 62 days contradicts itself or another row, and mail is delivered.

    `until` is the last closed day: volumes are judged up to it, as a day that is still going on has
    too few of everything.
    """
    since = until - timedelta(days=DAYS_TO_BE_COMPLETE - 1)
    volumes = read_volumes(connection, until)
    found = [
        *_odd(read_odd_rows(connection, since, today)),
        *_alike(volumes),
        *_in_trouble(volumes),
    ]
    found.sort(key=lambda it: it[0] is Severity.WARN)
    names = list(dict.fromkeys(str(row["workspace"]) for _, row in found))
    errors = sum(severity is Severity.ERROR for severity, _ in found)
    return outcome(
        Check.PLAUSIBLE,
        [row for _, row in found],
        well=f"The rows of {since} to {today} fit together, and mail gets through.",
        trouble=f"{counted(len(found), 'thing')} to look at, {errors} of them impossible, of "
        f"{listed(names)}. {_REMEDY if errors else _ADVICE}",
        severity=Severity.ERROR if errors else Severity.WARN,
        numbers={"impossible": errors, "odd": len(found) - errors},
    )


_REMEDY = (
    "Compare with Email Bison's own page. Where it says otherwise, `kpi keys check` shows whose "
    "key answers, and `kpi backfill --from FIRST-OF-THE-MONTH --to TODAY -w CLIENT` works the rows "
    "out anew."
)
_ADVICE = "Nothing is wrong with the rows: look at the campaigns of these clients in Email Bison."


def _odd(rows: Sequence[OddRow]) -> Iterator[_Found]:
    for row in rows:
        if row.negative:
            yield _error(row, "a number is below 0")
        if row.not_nested:
            yield _error(row, "7 days hold more than 14, or 14 more than 30")
        if _fell(row.emails_before, row.emails, 0, _MAIL_TAKEN_BACK_PERCENT):
            yield _error(row, f"the month's emails fell from {row.emails_before} to {row.emails}")
        if _fell(row.replies_before, row.replies, _LEADS_TAKEN_BACK, _LEADS_TAKEN_BACK_PERCENT):
            fall = f"from {row.replies_before} to {row.replies}"
            yield _error(row, f"the month's positive replies fell {fall}")


def _fell(before: int | None, after: int | None, by: int, percent: int) -> bool:
    """Whether a month's sum fell by more than revisions explain."""
    if before is None or after is None:
        return False
    return before - after > max(by, before * percent / 100)


def _error(row: OddRow, problem: str) -> _Found:
    found = {"workspace": row.workspace, "date": row.metric_date.isoformat(), "problem": problem}
    return Severity.ERROR, found


def _alike(volumes: Sequence[Volume]) -> Iterator[_Found]:
    """Clients whose totals of 30 days are the same, each of five: one of them has another's."""
    groups: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for it in volumes:
        answers = (it.replied, it.interested, it.bounced, it.unsubscribed)
        # Two that send up to the same limit, to no reply yet, are no wonder.
        if it.sent > 0 and any(answers):
            groups[it.days, it.sent, *answers].append(it.workspace)
    for (_, sent, *_), names in groups.items():
        for name in names if len(names) > 1 else ():
            others = listed([it for it in names if it != name], 3)
            problem = f"the same {sent:,} emails, replies and bounces in 30 days as {others}"
            yield Severity.ERROR, {"workspace": name, "date": None, "problem": problem}


def _in_trouble(volumes: Sequence[Volume]) -> Iterator[_Found]:
    for it in volumes:
        sent, bounced = it.sent_of_week, it.bounced_of_week
        if sent >= _BOUNCES_OF_AT_LEAST and bounced * 100 > sent * _BOUNCES_PERCENT:
            share = f"{bounced * 100 / sent:.1f} % of {sent:,} emails bounced in 7 days"
            yield Severity.WARN, {"workspace": it.workspace, "date": None, "problem": share}
        if sent > 0 and it.interested_of_week == 0 and it.days_of_week == 7:
            problem = f"no positive reply in 7 days, with {sent:,} emails sent"
            yield Severity.WARN, {"workspace": it.workspace, "date": None, "problem": problem}
