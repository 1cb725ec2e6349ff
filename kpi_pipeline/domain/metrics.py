"""The numbers of a client's row, worked out from daily facts. No other file defines one.

The definitions are the agency's. Two rules hold throughout: a number is a pure function of facts
and targets, and missing is not zero, so a window with a day that no fact tells of is NULL.

Frames come in and go out. In between a row is worked out in plain integers: most callers want the
few rows that a webhook changed, at once, and pandas takes 25 ms for as many operations on so few.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from typing import Any, overload
from zoneinfo import ZoneInfo

import pandas as pd

from kpi_pipeline.domain import calendar
from kpi_pipeline.domain.columns import FACT_COUNTS, METRIC_COLUMNS, PERCENTAGES

_TYPES = (
    dict.fromkeys(("workspace", "metric_date"), "object")
    | dict.fromkeys(METRIC_COLUMNS, "Int64")
    | dict.fromkeys(PERCENTAGES, "object")
    | {"monthly_kpi_target": "Int64", "as_of": "datetime64[us, UTC]"}
)
_ONE_DAY = timedelta(days=1)


def compute(
    facts: pd.DataFrame, targets: pd.DataFrame, dates: Sequence[date], tz: ZoneInfo
) -> pd.DataFrame:
    """Return one row of numbers for each workspace and each of `dates` that the facts hold.

    A date without facts of its own gives no row; a window that lacks another day is NULL. Every
    window ends on the metric date and includes it, last month's aside.

    `facts` has a row for each workspace and day, in any order: workspace, date (a business day of
    `tz`), the counts of FACT_COUNTS, and as_of, the aware instant at which they were asked for. It
    must reach back as far as `calendar.fetch_period` says, or the windows that it cuts short
    are NULL. `targets` has workspace, holds_from (the first day of a month) and monthly_kpi_target
    (positive replies a month, or none). A month's target is the latest that holds from its first
    day or before; a target of 0 is shown as it stands, but no percentage is taken of it.

    The rows are sorted by workspace and metric_date. Their columns are those two, METRIC_COLUMNS,
    monthly_kpi_target, and as_of (of the metric date's own facts, in UTC). Counts are nullable
    integers; percentages are Decimals with two places, or None, rounded half away from zero as
    PostgreSQL's round(numeric, 2) does.

    Raises ValueError when facts hold a day of a workspace twice, a negative or missing count, or an
    as_of without a time zone, or when targets hold a month of a workspace twice.
    """
    days = _days_by_workspace(facts)
    history = _targets_by_workspace(targets)
    rows = [
        _row(workspace, day, known, history.get(workspace, {}), tz)
        for workspace, known in sorted(days.items())
        for day in sorted({*dates} & known.days.keys())
    ]
    return pd.DataFrame(
        {name: pd.Series([row[name] for row in rows], dtype=kind) for name, kind in _TYPES.items()}
    )


def records(frame: pd.DataFrame) -> list[dict[str, object]]:
    """Return a frame's rows as plain Python values, ready for a database driver.

    Values are str, int, Decimal, date or datetime, and None wherever pandas marks one as missing.
    """
    columns = [map(_plain, frame[name].tolist()) for name in frame.columns]
    return [dict(zip(frame.columns, row, strict=True)) for row in zip(*columns, strict=True)]


def _row(
    workspace: str, day: date, known: "_Days", targets: Mapping[date, int | None], tz: ZoneInfo
) -> dict[str, Any]:
    month_start = calendar.first_of_month(day)
    month = known.over(month_start, day)
    last_month = known.over(calendar.first_of_previous_month(day), month_start - _ONE_DAY)
    last_7, last_14, last_30 = (
        known.over(day - timedelta(days=length - 1), day) for length in (7, 14, 30)
    )
    today = known.days[day]
    replies = month.interested
    # Each day of the month counts as long as the metric date, which is 23 to 25 hours.
    whole_month = calendar.days_in_month(day) * _seconds(calendar.day_length(day, tz))
    elapsed = _elapsed_seconds(day, today.as_of, tz)
    projected_replies = _divided(_times(replies, whole_month), elapsed)
    target = _target_of(month_start, targets)
    week, week_before = last_7.interested, _minus(last_14.interested, last_7.interested)
    return {
        "workspace": workspace,
        "metric_date": day,
        "emails_sent_mtd": month.sent,
        "positive_replies_mtd": replies,
        "all_replies_mtd": month.replied,
        "bounced_mtd": month.bounced,
        "unsubscribed_mtd": month.unsubscribed,
        "emails_sent_today": today.counts.sent,
        "positive_replies_today": today.counts.interested,
        "emails_sent_last_7_days": last_7.sent,
        "emails_sent_last_14_days": last_14.sent,
        "emails_sent_last_30_days": last_30.sent,
        "positive_replies_last_7_days": week,
        "positive_replies_last_14_days": last_14.interested,
        "positive_replies_last_30_days": last_30.interested,
        "positive_replies_last_month": last_month.interested,
        "positive_replies_current_month": replies,
        "projection_positive_replies_eom": projected_replies,
        "projection_emails_eom": _divided(_times(month.sent, whole_month), elapsed),
        "mtd_leads_progress": _percent(replies, target),
        "projection_replies_progress": _percent(projected_replies, target),
        "last_week_vs_week_before_progress": _percent(_minus(week, week_before), week_before),
        "monthly_kpi_target": target,
        "as_of": today.as_of,
    }


@dataclass(frozen=True)
class _Counts:
    """One number for each of FACT_COUNTS, or None where days are missing."""

    sent: int | None = None
    replied: int | None = None
    interested: int | None = None
    bounced: int | None = None
    unsubscribed: int | None = None


@dataclass(frozen=True)
class _Day:
    """What the facts hold of a day, and the aware instant at which they were asked for."""

    counts: _Counts
    as_of: datetime


class _Days:
    """A workspace's days, and the sums over any run of them: differences of two running totals.

    The totals run over every day from the first fact to the last. A day that no fact tells of adds
    nothing, and is missing from the number of days told, which shows that a sum is not whole.
    """

    def __init__(self, days: Mapping[date, _Day]) -> None:
        self.days = days
        first, last = min(days), max(days)
        self._eve = first - _ONE_DAY
        told = [days.get(day) for day in calendar.days_between(first, last)]
        self._days_told = list(accumulate((day is not None for day in told), initial=0))
        self._totals = {
            name: list(
                accumulate((getattr(day.counts, name) if day else 0 for day in told), initial=0)
            )
            for name in FACT_COUNTS
        }

    def over(self, first: date, last: date) -> _Counts:
        """The sums of the days `first` … `last`."""
        before, until = (self._place(day) for day in (first - _ONE_DAY, last))
        if self._days_told[until] - self._days_told[before] != (last - first).days + 1:
            return _Counts()
        return _Counts(**{name: sums[until] - sums[before] for name, sums in self._totals.items()})

    def _place(self, day: date) -> int:
        """Where the totals stand at the end of a day; before the first fact they are 0."""
        return max(0, (day - self._eve).days)


def _days_by_workspace(facts: pd.DataFrame) -> dict[str, _Days]:
    days: dict[str, dict[date, _Day]] = {}
    for workspace, day, values, as_of in _fact_rows(facts):
        of_workspace = days.setdefault(workspace, {})
        complaint = None
        if day in of_workspace:
            complaint = "stands in the facts twice"
        elif not all(value == value and value is not None and value >= 0 for value in values):
            complaint = "has a negative or missing count"
        elif not isinstance(as_of, datetime) or pd.isna(as_of) or as_of.tzinfo is None:
            complaint = "has an as_of without a time zone"
        if complaint is not None:
            raise ValueError(f"{workspace} on {day} {complaint}.")
        counts = _Counts(**dict(zip(FACT_COUNTS, map(int, values), strict=True)))
        of_workspace[day] = _Day(counts, _datetime(as_of).astimezone(UTC))
    return {workspace: _Days(of_workspace) for workspace, of_workspace in days.items()}


def _fact_rows(facts: pd.DataFrame) -> Iterator[tuple[str, date, Sequence[int], datetime]]:
    as_of = facts["as_of"]
    if isinstance(as_of.dtype, pd.DatetimeTZDtype):
        as_of = as_of.dt.as_unit("us")
    counts = zip(*(facts[name].tolist() for name in FACT_COUNTS), strict=True)
    return zip(facts["workspace"], facts["date"], counts, as_of, strict=True)


def _targets_by_workspace(targets: pd.DataFrame) -> dict[str, dict[date, int | None]]:
    history: dict[str, dict[date, int | None]] = {}
    columns = (targets[name] for name in ("workspace", "holds_from", "monthly_kpi_target"))
    for workspace, holds_from, target in zip(*columns, strict=True):
        of_workspace = history.setdefault(workspace, {})
        if holds_from in of_workspace:
            raise ValueError(f"{workspace} has two targets from {holds_from}.")
        of_workspace[holds_from] = None if pd.isna(target) else int(target)
    return history


def _target_of(month_start: date, targets: Mapping[date, int | None]) -> int | None:
    """The latest target that holds from this month or before."""
    held = [holds_from for holds_from in targets if holds_from <= month_start]
    return targets[max(held)] if held else None


def _elapsed_seconds(day: date, as_of: datetime, tz: ZoneInfo) -> int:
    """How much of its month had passed on a metric date at `as_of`, at least one day."""
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


def _plain(value: object) -> object:
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return None
    return _datetime(value) if isinstance(value, datetime) else value


def _datetime(instant: datetime) -> datetime:
    """The same as Python's own class, which is many times as quick as pandas' in arithmetic."""
    return instant.to_pydatetime() if isinstance(instant, pd.Timestamp) else instant
