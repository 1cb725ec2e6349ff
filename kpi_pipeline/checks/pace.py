"""The checks `sending_pace` and `reply_rate`: enough mail goes out, and people answer it.

Both warn: the numbers are right, and the campaigns need a person. Each client may have a threshold
of its own in the registry, where the agency expects something else of it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from decimal import ROUND_DOWN, ROUND_UP, Decimal

from sqlalchemy import Connection

from kpi_pipeline.checks.outcome import Check, Outcome, ProblemRow, Severity, outcome
from kpi_pipeline.db.check_queries.pace import (
    Pace,
    WeekOfReplies,
    read_paces,
    read_weeks_of_replies,
)
from kpi_pipeline.db.registry.thresholds import shown_percent
from kpi_pipeline.domain.calendar import days_in_month, first_of_month
from kpi_pipeline.domain.formatting import counted, listed

# In percent, for clients without a threshold of their own.
DEFAULT_MAX_SENDING_SHORTFALL = Decimal(15)
DEFAULT_MIN_REPLY_RATE = Decimal("0.3")

# Who sends on weekdays alone is behind after a weekend, the more so at the beginning of a month.
# After a week, and with the best of three days, that is less than 13 %.
_FIRST_DAY_JUDGED = 7
_ONE_DAY = timedelta(days=1)
_DAYS_BEHIND = 3
# Of fewer emails a share says nothing.
_EMAILS_AT_LEAST = 100
_DAYS_OF_WEEK = 7
# A fetch that fails for so long ends no problem: others name the missing days.
_DAYS_LATE = 3

# A problem of a client, and how bad it is: the worst come first.
_Found = tuple[Decimal, ProblemRow]


def sending_pace(connection: Connection, until: date) -> Outcome:
    """No client is further behind its monthly sending target than it may be.

    What is due by the end of a day is the target × its day of the month ÷ the days of the month:
    calendar days, as in the projection. So a client is behind by 15 % if its projection is 85 % of
    its target. It has a problem if it was on each of three days, up to `until`, the last closed
    day. In the first six days of a month, the month before is judged, up to its last day.
    """
    last = until if until.day >= _FIRST_DAY_JUDGED else first_of_month(until) - _ONE_DAY
    paces = read_paces(connection, last - (_DAYS_BEHIND - 1) * _ONE_DAY, last)
    left_out = {it.workspace: why for it in paces if (why := _why_no_pace(it))}
    found = [row for it in paces if it.workspace not in left_out and (row := _behind(it))]
    judged = len(paces) - len(left_out)
    names, rows = _worst_first(found)
    not_judged = _left_out(left_out)
    return outcome(
        Check.SENDING_PACE,
        rows,
        if_passed=f"{counted(judged, 'client')} judged up to {last}, and none is behind its "
        f"sending target by more than it may be.{not_judged}",
        if_failed=f"{len(rows)} of {counted(judged, 'client')} behind the sending target on each "
        f"of the {_DAYS_BEHIND} days up to {last}: {listed(names)}. Check their campaigns in "
        "Email Bison: are they active, with leads left and senders connected? If fewer emails are "
        "intended, change the sending target on the client's page, or allow more with "
        f"`kpi clients thresholds {next(iter(names), '')} --max-sending-shortfall PERCENT`."
        f"{not_judged}",
        severity=Severity.WARN,
        numbers={"clients": judged, "behind": len(rows)},
    )


def _why_no_pace(pace: Pace) -> str | None:
    """Why a client is not judged, in words that follow their number."""
    if pace.is_new:
        return "new in the month"
    if pace.has_rows and not pace.target:
        return "without a sending target"
    return "with a day of the month unknown" if pace.progress is None else None


def _behind(pace: Pace) -> _Found | None:
    limit = _or(pace.max_shortfall, DEFAULT_MAX_SENDING_SHORTFALL)
    if pace.progress is None or 100 - pace.progress <= limit:
        return None
    if pace.target is None or pace.sent is None or pace.day is None:
        return None
    due = Decimal(pace.target * pace.day.day) / days_in_month(pace.day)
    shortfall = 100 - 100 * pace.sent / due
    # Away from the limit: 15.04 % is more than 15.
    shown = shortfall.quantize(Decimal("0.1"), ROUND_UP)
    text = (
        f"{counted(pace.sent, 'email')} sent by the end of {pace.day}, {due:,.0f} are due for the "
        f"sending target of {pace.target:,}: {shown} % behind, "
        f"{shown_percent(limit)} % are allowed"
    )
    return shortfall, {"workspace": pace.workspace, "problem": text}


def reply_rate(connection: Connection, until: date) -> Outcome:
    """Of each client's emails of seven days, up to `until`, enough were replied to.

    Of a client whose last days are not fetched yet, the seven before them count. Clients that sent
    fewer than 100 are left out, and so are those without an email in the 23 days before: replies
    follow days later.
    """
    weeks = read_weeks_of_replies(connection, until - (_DAYS_LATE - 1) * _ONE_DAY, until)
    left_out = {it.workspace: why for it in weeks if (why := _why_no_rate(it))}
    found = [row for it in weeks if it.workspace not in left_out and (row := _few_replies(it))]
    judged = len(weeks) - len(left_out)
    names, rows = _worst_first(found)
    not_judged = _left_out(left_out)
    period = f"the {_DAYS_OF_WEEK} days up to {until}"
    return outcome(
        Check.REPLY_RATE,
        rows,
        if_passed=f"{counted(judged, 'client')} judged: enough emails of {period} were replied to."
        f"{not_judged}",
        if_failed=f"{len(rows)} of {counted(judged, 'client')} with few replies in {period}: "
        f"{listed(names)}. Check in Email Bison whether their emails reach inboxes (bounces, "
        "warm-up, the domain's reputation), and what they say. If fewer replies are normal for a "
        f"client, allow them with `kpi clients thresholds {next(iter(names), '')} "
        f"--min-reply-rate PERCENT`.{not_judged}",
        severity=Severity.WARN,
        numbers={"clients": judged, "few_replies": len(rows)},
    )


def _why_no_rate(week: WeekOfReplies) -> str | None:
    if week.days < _DAYS_OF_WEEK:
        return "with a day of the week unknown"
    if week.sent < _EMAILS_AT_LEAST:
        return f"with fewer than {_EMAILS_AT_LEAST} emails"
    return "new" if week.sent_before == 0 else None


def _few_replies(week: WeekOfReplies) -> _Found | None:
    limit = _or(week.min_rate, DEFAULT_MIN_REPLY_RATE)
    rate = Decimal(100 * week.replied) / week.sent
    if rate >= limit:
        return None
    shown = rate.quantize(Decimal("0.01"), ROUND_DOWN)
    text = (
        f"{shown} % replies to {week.sent:,} emails sent in {_DAYS_OF_WEEK} days, "
        f"{shown_percent(limit)} % are expected"
    )
    return limit - rate, {"workspace": week.workspace, "problem": text}


def _or(own: Decimal | None, default: Decimal) -> Decimal:
    return default if own is None else own


def _worst_first(found: Sequence[_Found]) -> tuple[list[str], list[ProblemRow]]:
    """The clients with a problem, and their rows."""
    rows = [row for _, row in sorted(found, key=lambda it: it[0], reverse=True)]
    return [str(row["workspace"]) for row in rows], rows


def _left_out(reasons: Mapping[str, str]) -> str:
    """How many clients are not judged, by reason."""
    counts = Counter(reasons.values())
    if not counts:
        return ""
    return f" Not judged: {', '.join(f'{number} {why}' for why, number in counts.most_common())}."
