"""The counts of a day, as the vendor shows them at a given moment.

Observed live: recent days are revised, as late replies come in and replies are marked. So a closed
day shows a growing share of its final counts for a week, and today grows as it passes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from bison_sandbox.world.agency import Profile, binomial, poisson, uniforms
from bison_sandbox.world.clock import Days

SETTLING = (0.80, 0.87, 0.91, 0.94, 0.96, 0.98, 0.99, 1.0)
"""Share of a day's late counts that has come in, by the day's age in business days."""

_WEEKDAYS = (0.96, 1.02, 1.03, 1.02, 0.97)
_DAYLIGHT = ((0.0, 0.0), (7 / 24, 0.06), (18 / 24, 0.92), (1.0, 1.0))
"""Fraction of the day that has passed, and the share of its counts that has come in."""


class Day(NamedTuple):
    """Counts of one workspace on one business date."""

    sent: int = 0
    replied: int = 0
    interested: int = 0
    bounced: int = 0
    unsubscribed: int = 0
    total_opens: int = 0
    unique_opens: int = 0


NOTHING = Day()


@dataclass(frozen=True, slots=True)
class _Draft:
    """A day's final counts, and two thresholds (0.05 to 0.95) for rounding shares of them."""

    last: Day
    late_threshold: float
    daily_threshold: float

    def aged(self, age: int) -> Day:
        if age >= len(SETTLING) - 1:
            return self.last
        last, share, up = self.last, SETTLING[age], self.late_threshold
        return Day(
            last.sent,
            int(last.replied * share + up),
            int(last.interested * share + up),
            int(last.bounced * share + up),
            last.unsubscribed,
            last.total_opens,
            last.unique_opens,
        )

    def so_far(self, fraction: float) -> Day:
        """Today's counts at this fraction of the day; the same rounding keeps their order."""
        share = _share_at(fraction)
        return Day(*(int(count * share + self.daily_threshold) for count in self.aged(0)))


class Numbers:
    """The series of every workspace: a pure function of seed, profile, date and now.

    `days_of` returns the days of a workspace, by the zone that bounds them.
    """

    def __init__(self, seed: int, days_of: Callable[[Profile], Days]) -> None:
        self._seed = seed
        self._days_of = days_of
        self._draft = lru_cache(maxsize=65_536)(self._draw)
        self._mood = lru_cache(maxsize=4_096)(self._draw_mood)

    def series(self, profile: Profile, first: date, last: date, now: datetime) -> list[Day]:
        """One Day for each date from `first` to `last`, both included, as known at `now`."""
        bounds = self._days_of(profile)
        today, fraction = bounds.date_of(now), bounds.fraction_passed(now)
        days = []
        for offset in range((last - first).days + 1):
            day = first + timedelta(days=offset)
            if not profile.start <= day <= today:
                days.append(NOTHING)
            elif day == today:
                days.append(self._draft(profile, day).so_far(fraction))
            else:
                days.append(self._draft(profile, day).aged((today - day).days))
        return days

    def planned(self, profile: Profile, day: date) -> int:
        """Mails that the campaigns plan to send today or on a later day."""
        return self._draft(profile, day).last.sent if day >= profile.start else 0

    def reply_fraction(self, profile: Profile, day: date, index: int) -> float:
        """The fraction of the day at which its reply number `index` (from 0) came in.

        Replies that the day shows when it closes came in when its count rose; the late ones came in
        after these.
        """
        draft = self._draft(profile, day)
        at_close = draft.aged(0).replied
        if index < at_close:
            return _fraction_at((index + 1 - draft.daily_threshold) / at_close)
        latest = (at_close - draft.daily_threshold) / at_close if at_close else 0.5
        late = (index - at_close + 1) / (draft.last.replied - at_close + 1)
        return _fraction_at(latest + (1 - latest) * late)

    def _draw(self, profile: Profile, day: date) -> _Draft:
        chance = uniforms(self._seed, profile.workspace_id, day.toordinal())
        if day.weekday() < 5:
            sent = round(profile.mails * _WEEKDAYS[day.weekday()] * (0.96 + 0.08 * chance[0]))
        else:
            sent = 0 if chance[0] < 0.3 else int(profile.mails * 0.015 * chance[1])
        replied = min(sent, poisson(sent * profile.reply_rate, chance[2]))
        interested = 0
        if not profile.is_quiet_on(day):
            share = profile.interested_share * self._mood(profile, day.year, day.month)
            interested = binomial(replied, share, chance[3])
        unique_opens = int(sent * profile.open_rate * (0.9 + 0.2 * chance[4]))
        last = Day(
            sent=sent,
            replied=replied,
            interested=interested,
            bounced=int(sent * profile.bounce_rate * (0.8 + 0.4 * chance[5]) + chance[6]),
            unsubscribed=min(sent, poisson(sent * 0.0008, chance[7])),
            total_opens=int(unique_opens * (1.2 + 0.5 * chance[8])),
            unique_opens=unique_opens,
        )
        return _Draft(last, 0.05 + 0.9 * chance[9], 0.05 + 0.9 * chance[10])

    def _draw_mood(self, profile: Profile, year: int, month: int) -> float:
        """A factor around 1 for each month: without differences, all projections would be right."""
        return 0.75 + 0.55 * uniforms(self._seed, profile.workspace_id, "month", year, month)[0]


def total(days: Iterable[Day]) -> Day:
    """The sum of days, count by count."""
    return Day(*map(sum, zip(*days, strict=True)))


def _share_at(fraction: float) -> float:
    return _between(_DAYLIGHT, fraction)


def _fraction_at(share: float) -> float:
    return _between(tuple((y, x) for x, y in _DAYLIGHT), share)


def _between(points: tuple[tuple[float, float], ...], x: float) -> float:
    for (x0, y0), (x1, y1) in pairwise(points):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]
