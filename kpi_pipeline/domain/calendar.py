"""Business days: the calendar days of the time zone in which the agency counts.

A business day starts at local midnight, so it lasts 23, 24 or 25 hours where clocks change. Every
instant is an aware datetime, and the clock is always passed in.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import groupby
from zoneinfo import ZoneInfo

_ONE_DAY = timedelta(days=1)
_LONGEST_WINDOW_DAYS = 30
# From the first day of a month of 31 days to the last day of the next, which has 31 as well.
LONGEST_LOOK_BACK_DAYS = 62


def business_date(instant: datetime, tz: ZoneInfo) -> date:
    """Return the business day on which an instant falls.

    Raises ValueError for a naive instant: its day would depend on the machine's own time zone.
    """
    return _aware(instant).astimezone(tz).date()


# A run asks for the same days for each of its clients, and three times for each row.
@lru_cache(maxsize=4096)
def day_start(day: date, tz: ZoneInfo) -> datetime:
    """Return the first instant of a business day, in UTC.

    Where clocks jump over midnight, that is the instant of the jump; where midnight comes twice,
    the earlier one.
    """
    # fold=0, the default, reads a skipped or repeated midnight by the offset before the change.
    return datetime.combine(day, time.min, tzinfo=tz).astimezone(UTC)


def day_length(day: date, tz: ZoneInfo) -> timedelta:
    """Return how long a business day lasts: 24 hours, or 23 or 25 where clocks change by one."""
    return day_start(day + _ONE_DAY, tz) - day_start(day, tz)


def elapsed(day: date, as_of: datetime, tz: ZoneInfo) -> timedelta:
    """Return the part of a business day that had passed at `as_of`, from 0 to the day's length.

    Raises ValueError for a naive `as_of`.
    """
    passed = _aware(as_of) - day_start(day, tz)
    return min(max(passed, timedelta(0)), day_length(day, tz))


def first_of_month(day: date) -> date:
    """Return the first day of a day's month."""
    return day.replace(day=1)


def days_in_month(day: date) -> int:
    """Return how many days a day's month has: 28 to 31."""
    # The 28th plus four days lies in the next month, whatever the length of this one.
    next_month = day.replace(day=28) + timedelta(days=4)
    return (next_month - timedelta(days=next_month.day)).day


def first_of_previous_month(day: date) -> date:
    """Return the first day of the month before a day's month."""
    return first_of_month(first_of_month(day) - _ONE_DAY)


def last_date_affected(day: date) -> date:
    """Return the last metric date whose row a day's facts affect: the end of the next month.

    The longest window is the month before the metric date's month; 30 days never reach further.
    """
    next_month = day.replace(day=28) + timedelta(days=4)
    return next_month.replace(day=days_in_month(next_month))


def days_between(first: date, last: date) -> list[date]:
    """Return each day from `first` to `last`, both included.

    Raises ValueError when `last` comes before `first`.
    """
    if last < first:
        raise ValueError(f"The period {first} to {last} ends before it starts.")
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def consecutive_ranges(days: Sequence[date]) -> Iterator[tuple[date, date]]:
    """Yield the first and last day of each range of consecutive days among sorted days."""
    # Along consecutive days, the ordinal minus the position stays the same.
    for _, group in groupby(enumerate(days), lambda it: it[1].toordinal() - it[0]):
        days_in_range = [day for _, day in group]
        yield days_in_range[0], days_in_range[-1]


def fetch_period(first: date, last: date) -> tuple[date, date]:
    """Return the first and last day to fetch for every number of `first` … `last` to be known.

    The longest window has 30 days and ends on its own day; "last month" is the whole month before.
    """
    longest_window = first - timedelta(days=_LONGEST_WINDOW_DAYS - 1)
    return min(longest_window, first_of_previous_month(first)), last


def first_grid_date(configured: date | None, today: date) -> date:
    """Return the first date that runs fill: as configured, else 1 January of last year."""
    return configured or date(today.year - 1, 1, 1)


def nightly_dates(today: date, closed_days: int = 7) -> tuple[date, date]:
    """Return the first and last day of a nightly sync: the last closed days, and today.

    Bison revises recent days (late replies, re-marking; observed live), so these are fetched and
    computed again.
    """
    return today - timedelta(days=closed_days), today


def _aware(instant: datetime) -> datetime:
    if instant.utcoffset() is None:
        raise ValueError(f"The instant {instant} has no time zone.")
    return instant
