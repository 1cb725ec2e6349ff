"""Where a client's month stands, and what is left of it.

One rule for the dashboard, its API, the daily summary and the plots of `agency_totals`.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

from kpi_pipeline.domain.calendar import days_in_month

LIVE_FOR = timedelta(minutes=5)


class Standing(StrEnum):
    """Where a client's month stands, the most urgent first."""

    BEHIND = "behind"
    ON_TRACK = "on track"
    ABOVE_TARGET = "above target"
    NO_TARGET = "no target"
    NO_DATA = "no data"


# The month reaches its target, or will at the pace so far.
ON_TRACK = {Standing.ABOVE_TARGET, Standing.ON_TRACK}


def standing(positive_replies: int | None, projection: int | None, target: int | None) -> Standing:
    """Where a month stands, from a row's positive replies so far, their projection, and the target.

    A client without a row, or with a row that lacks one of the two numbers, has no data. A target
    of 0 is reached at once.
    """
    if positive_replies is None or projection is None:
        return Standing.NO_DATA
    if target is None:
        return Standing.NO_TARGET
    if positive_replies >= target:
        return Standing.ABOVE_TARGET
    return Standing.ON_TRACK if projection >= target else Standing.BEHIND


def daily_quota(
    target: int | None, so_far: int | None, on_the_day: int | None, day: date
) -> int | None:
    """How many a day are needed from `day` to its month's end to reach `target`, rounded up.

    `so_far` includes `on_the_day`, the count of `day` itself, which is a part of the days left.
    None without a target or without numbers; 0 once the target is reached.
    """
    if target is None or so_far is None or on_the_day is None:
        return None
    days_left = days_in_month(day) - day.day + 1
    return max(0, -(-(target - (so_far - on_the_day)) // days_left))


class Age(StrEnum):
    """How old the data is that a page shows."""

    LIVE = "Live"
    FRESH = "Fresh"
    STALE = "Stale"
    NO_DATA = "No data"


@dataclass(frozen=True)
class DataAge:
    """The age of the data of some clients.

    `latest` is when the youngest data is from, and `stale` are the clients whose data is too old,
    those without any data included.
    """

    age: Age
    latest: datetime | None
    stale: tuple[str, ...]


def data_age(
    data_from: dict[str, datetime | None], now: datetime, stale_after: timedelta
) -> DataAge:
    """The age of the data, never of its reading: `data_from` says when each client's is from.

    One client whose data is older than `stale_after` makes the whole page stale, as a page that
    called the data of days ago fresh was once believed.
    """
    known = [it for it in data_from.values() if it is not None]
    latest = max(known, default=None)
    if latest is None:
        return DataAge(Age.NO_DATA, None, tuple(data_from))
    stale = tuple(name for name, at in data_from.items() if at is None or now - at > stale_after)
    if stale:
        return DataAge(Age.STALE, latest, stale)
    return DataAge(Age.LIVE if now - latest <= LIVE_FOR else Age.FRESH, latest, ())
