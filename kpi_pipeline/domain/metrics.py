"""The numbers of a client's row, computed from daily facts. No other file defines one.

The definitions are the agency's. Two rules hold throughout: a number is a pure function of facts
and targets, and missing is not zero, so a window that lacks the facts of a day is None.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from operator import add, attrgetter, sub
from typing import NamedTuple, overload
from zoneinfo import ZoneInfo

from kpi_pipeline.domain import calendar
from kpi_pipeline.domain.columns import FACT_COUNTS

_ONE_DAY = timedelta(days=1)
_counts_of = attrgetter(*FACT_COUNTS)


@dataclass(frozen=True, slots=True)
class DailyFact:
    """What Bison counted in one workspace on one business date, as of the aware instant `as_of`."""

    workspace: str
    date: date
    sent: int
    replied: int
    interested: int
    bounced: int
    unsubscribed: int
    as_of: datetime


@dataclass(frozen=True, slots=True)
class Target:
    """A client's targets from the month that begins on `holds_from`, until the next ones.

    They are in positive replies and in emails a month. None: the client has none any more.
    """

    workspace: str
    holds_from: date
    monthly_kpi_target: int | None
    monthly_sending_target: int | None = None


_NO_TARGET = Target("", date.min, None)


@dataclass(frozen=True, slots=True)
class ComputedRow:
    """The numbers of one client on one metric date; `columns.MEANINGS` describes each.

    None marks a number of which a day is missing, or that has no target to compare with.
    Percentages have two places, rounded half away from zero as PostgreSQL's round(numeric, 2) does.
    `as_of` is that of the metric date's own facts, in UTC.
    """

    workspace: str
    metric_date: date
    emails_sent_mtd: int | None
    positive_replies_mtd: int | None
    all_replies_mtd: int | None
    bounced_mtd: int | None
    unsubscribed_mtd: int | None
    emails_sent_today: int
    positive_replies_today: int
    emails_sent_last_7_days: int | None
    emails_sent_last_14_days: int | None
    emails_sent_last_30_days: int | None
    positive_replies_last_7_days: int | None
    positive_replies_last_14_days: int | None
    positive_replies_last_30_days: int | None
    positive_replies_last_month: int | None
    positive_replies_current_month: int | None
    projection_positive_replies_eom: int | None
    projection_emails_eom: int | None
    mtd_leads_progress: Decimal | None
    projection_replies_progress: Decimal | None
    last_week_vs_week_before_progress: Decimal | None
    sending_progress: Decimal | None
    projection_sending_progress: Decimal | None
    reply_rate_mtd: Decimal | None
    positive_rate_mtd: Decimal | None
    bounce_rate_mtd: Decimal | None
    monthly_kpi_target: int | None
    monthly_sending_target: int | None
    as_of: datetime


def compute(
    facts: Iterable[DailyFact],
    targets: Iterable[Target],
    dates: Iterable[date],
    tz: ZoneInfo,
    *,
    unfetched: Iterable[DailyFact] = (),
) -> list[ComputedRow]:
    """Return one row for each workspace and each of `dates` that has facts, sorted by these two.

    A date without facts of its own gives no row; a window that lacks another day is None. Every
    window ends on the metric date and includes it, except last month's.

    `unfetched` has days that were never fetched, with what events tell of them. Such a day counts
    in its own row alone: for all others it is unknown.

    The facts may come in any order. Their dates are business dates of `tz`, and they must reach
    back as far as `calendar.fetch_period` says: the windows that they cut short are None. A month's
    target is the latest that holds from its first day or before; a target of 0 is passed on, but no
    percentage is taken of it.

    Raises ValueError when facts hold a day of a workspace twice, a negative or missing count, or an
    as_of without a time zone, or when targets hold a month of a workspace twice.
    """
    wanted = set(dates)
    histories = _by_month(targets)
    rows = []
    known = _by_date(facts)
    for workspace, by_date in known.items():
        sums = _PrefixSums(by_date)
        history = histories.get(workspace, {})
        rows += [_row(by_date[day], sums, history, tz) for day in wanted & by_date.keys()]
    for workspace, alone in _by_date(unfetched).items():
        history = histories.get(workspace, {})
        for day in wanted & alone.keys():
            sums = _PrefixSums({**known.get(workspace, {}), day: alone[day]})
            rows.append(_row(alone[day], sums, history, tz))
    return sorted(rows, key=lambda row: (row.workspace, row.metric_date))


def _row(
    fact: DailyFact, sums: "_PrefixSums", targets: Mapping[date, Target], tz: ZoneInfo
) -> ComputedRow:
    day = fact.date
    month_start = calendar.first_of_month(day)
    month = sums.over(month_start, day)
    last_month = sums.over(calendar.first_of_previous_month(day), month_start - _ONE_DAY)
    last_7, last_14, last_30 = (
        sums.over(day - timedelta(days=length - 1), day) for length in (7, 14, 30)
    )
    replies = month.interested
    # Each day of the month counts as long as the metric date, which is 23 to 25 hours.
    whole_month = calendar.days_in_month(day) * _seconds(calendar.day_length(day, tz))
    elapsed = _elapsed_seconds(day, fact.as_of, tz)
    projected_replies = _divided(_times(replies, whole_month), elapsed)
    projected_emails = _divided(_times(month.sent, whole_month), elapsed)
    held = _target_of(month_start, targets)
    target, sending_target = held.monthly_kpi_target, held.monthly_sending_target
    week, week_before = last_7.interested, _minus(last_14.interested, last_7.interested)
    return ComputedRow(
        workspace=fact.workspace,
        metric_date=day,
        emails_sent_mtd=month.sent,
        positive_replies_mtd=replies,
        all_replies_mtd=month.replied,
        bounced_mtd=month.bounced,
        unsubscribed_mtd=month.unsubscribed,
        emails_sent_today=fact.sent,
        positive_replies_today=fact.interested,
        emails_sent_last_7_days=last_7.sent,
        emails_sent_last_14_days=last_14.sent,
        emails_sent_last_30_days=last_30.sent,
        positive_replies_last_7_days=week,
        positive_replies_last_14_days=last_14.interested,
        positive_replies_last_30_days=last_30.interested,
        positive_replies_last_month=last_month.interested,
        positive_replies_current_month=replies,
        projection_positive_replies_eom=projected_replies,
        projection_emails_eom=projected_emails,
        mtd_leads_progress=_percent(replies, target),
        projection_replies_progress=_percent(projected_replies, target),
        last_week_vs_week_before_progress=_percent(_minus(week, week_before), week_before),
        sending_progress=_percent(month.sent, sending_target),
        projection_sending_progress=_percent(projected_emails, sending_target),
        reply_rate_mtd=_percent(month.replied, month.sent),
        positive_rate_mtd=_percent(replies, month.sent),
        bounce_rate_mtd=_percent(month.bounced, month.sent),
        monthly_kpi_target=target,
        monthly_sending_target=sending_target,
        as_of=fact.as_of.astimezone(UTC),
    )


class _Counts(NamedTuple):
    """One sum for each of FACT_COUNTS, or None where days are missing."""

    sent: int | None = None
    replied: int | None = None
    interested: int | None = None
    bounced: int | None = None
    unsubscribed: int | None = None


_UNKNOWN = _Counts()


class _PrefixSums:
    """Prefix sums over one client's daily facts.

    They cover every day from the first fact to the last. A day without a fact adds nothing; the
    number of days with one, which is summed as well, shows that a window is not whole.
    """

    def __init__(self, by_date: Mapping[date, DailyFact]) -> None:
        first, last = min(by_date), max(by_date)
        self._day_before = first - _ONE_DAY
        nothing = (0,) * (1 + len(FACT_COUNTS))
        days = (by_date.get(day) for day in calendar.days_between(first, last))
        terms = (nothing if fact is None else (1, *_counts_of(fact)) for fact in days)
        self._sums = list(accumulate(terms, _added, initial=nothing))

    def over(self, first: date, last: date) -> _Counts:
        """The sums of the days `first` … `last`, of which `last` is not after the last fact."""
        known_days, *counts = map(sub, self._until(last), self._until(first - _ONE_DAY))
        return _Counts(*counts) if known_days == (last - first).days + 1 else _UNKNOWN

    def _until(self, day: date) -> tuple[int, ...]:
        """The sums at the end of a day; before the first fact they are 0."""
        return self._sums[max(0, (day - self._day_before).days)]


def _added(sums: tuple[int, ...], terms: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(add, sums, terms))


def _by_date(facts: Iterable[DailyFact]) -> dict[str, dict[date, DailyFact]]:
    found: defaultdict[str, dict[date, DailyFact]] = defaultdict(dict)
    for fact in facts:
        of_workspace = found[fact.workspace]
        problem = None
        if fact.date in of_workspace:
            problem = "is in the facts twice"
        elif any(count is None or count < 0 for count in _counts_of(fact)):
            problem = "has a negative or missing count"
        elif fact.as_of is None or fact.as_of.tzinfo is None:
            problem = "has an as_of without a time zone"
        if problem is not None:
            raise ValueError(f"{fact.workspace} on {fact.date} {problem}.")
        of_workspace[fact.date] = fact
    return found


def _by_month(targets: Iterable[Target]) -> dict[str, dict[date, Target]]:
    found: defaultdict[str, dict[date, Target]] = defaultdict(dict)
    for target in targets:
        of_workspace = found[target.workspace]
        if target.holds_from in of_workspace:
            raise ValueError(f"{target.workspace} has two targets from {target.holds_from}.")
        of_workspace[target.holds_from] = target
    return found


def _target_of(month_start: date, targets: Mapping[date, Target]) -> Target:
    """The latest target that holds from this month or before."""
    held = [holds_from for holds_from in targets if holds_from <= month_start]
    return targets[max(held)] if held else _NO_TARGET


def targets_of_month(targets: Iterable[Target], day: date) -> dict[str, Target]:
    """The targets that hold in the month of `day`, by workspace; of clients that ever had any."""
    month = calendar.first_of_month(day)
    return {
        workspace: _target_of(month, history) for workspace, history in _by_month(targets).items()
    }


def _elapsed_seconds(day: date, as_of: datetime, tz: ZoneInfo) -> int:
    """How much of the month has passed on a metric date at `as_of`, at least one day."""
    length = _seconds(calendar.day_length(day, tz))
    passed = _seconds(calendar.elapsed(day, as_of, tz))
    return max((day.day - 1) * length + passed, length)


def _seconds(duration: timedelta) -> int:
    return duration // timedelta(seconds=1)


def _times(count: int | None, by: int) -> int | None:
    return None if count is None else count * by


def _minus(count: int | None, other: int | None) -> int | None:
    return None if count is None or other is None else count - other


def _percent(part: int | None, whole: int | None) -> Decimal | None:
    """Part ÷ whole × 100 with two places; None unless `whole` is above 0."""
    if part is None or whole is None or whole <= 0:
        return None
    hundredths = _divided(abs(part) * 10_000, whole)
    return Decimal(hundredths if part >= 0 else -hundredths).scaleb(-2)


@overload
def _divided(amount: int, by: int) -> int: ...
@overload
def _divided(amount: int | None, by: int) -> int | None: ...
def _divided(amount: int | None, by: int) -> int | None:
    """Amount ÷ by, rounded half up: exact, for integers from 0 on and divisors above 0."""
    return None if amount is None else (2 * amount + by) // (2 * by)
