"""The counts of a day, as the vendor shows them at a given moment, and the moments behind them.

Observed live: recent days are revised, as late replies come in and replies are marked. So a closed
day shows a growing share of its final counts for a week, and today grows as it passes. Each count
belongs to a moment at which Email Bison recorded it: the event feed and the series agree.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple

from bison_sandbox.world.agency import Profile, binomial, poisson, uniforms
from bison_sandbox.world.clock import Days

SETTLING = (0.80, 0.87, 0.91, 0.94, 0.96, 0.98, 0.99, 1.0)
"""Share of a day's late counts that has come in, by the day's age in business days."""

LONGEST_REVISION = len(SETTLING) - 1
_LONGEST_MARKING = timedelta(days=3)
_LONGEST_MAIL = timedelta(days=6)
_DAYS_BEFORE = LONGEST_REVISION + _LONGEST_MARKING.days + 1
_DAYS_AFTER = _LONGEST_MAIL.days + 1
"""How far the days of a lead's mail, reply and marking lie from each other at most."""

_WEEKDAYS = (0.96, 1.02, 1.03, 1.02, 0.97)
_DAYLIGHT = ((0.0, 0.0), (7 / 24, 0.06), (18 / 24, 0.92), (1.0, 1.0))
"""Fraction of the day that has passed, and the share of its counts that has come in."""

LeadsCountBy = Literal["marking", "reply", "mail"]


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
CountName = Literal["sent", "replied", "bounced", "unsubscribed"]


class Rules(NamedTuple):
    """How the instance counts.

    `leads_count_by` is the moment whose day counts a lead: when it was marked, when its reply came,
    or when the mail went out. A day is revised until it is `revised_days` days old.
    """

    leads_count_by: LeadsCountBy = "marking"
    revised_days: int = LONGEST_REVISION


@dataclass(frozen=True, slots=True)
class Lead:
    """An interested lead: its reply is number `index` (from 0) of `day`; all moments are in UTC."""

    day: date
    index: int
    sent_at: datetime
    received_at: datetime
    marked_at: datetime

    def counted_at(self, by: LeadsCountBy) -> datetime:
        """The moment whose day counts the lead."""
        return counted_at(by, self.sent_at, self.received_at, self.marked_at)


def counted_at(
    by: LeadsCountBy, sent_at: datetime, received_at: datetime, marked_at: datetime
) -> datetime:
    """The one of a lead's moments whose day counts it."""
    match by:
        case "marking":
            return marked_at
        case "reply":
            return received_at
    return sent_at


@dataclass(frozen=True, slots=True)
class _Draft:
    """A day's final counts, and two thresholds (0.05 to 0.95) for rounding shares of them.

    `interested` is how many of its replies are marked at some time.
    """

    last: Day
    late_threshold: float
    daily_threshold: float

    def aged(self, age: int, revised_days: int = LONGEST_REVISION) -> Day:
        if age >= revised_days:
            return self.last
        last, share, up = self.last, SETTLING[age], self.late_threshold
        return last._replace(
            replied=int(last.replied * share + up), bounced=int(last.bounced * share + up)
        )

    def so_far(self, fraction: float, revised_days: int = LONGEST_REVISION) -> Day:
        """Today's counts at this fraction of the day; the same rounding keeps their order."""
        share, closing = _share_at(fraction), self.aged(0, revised_days)
        return Day(*(int(count * share + self.daily_threshold) for count in closing))


class Numbers:
    """The series of every workspace: a pure function of seed, profile, date and now.

    `days_of` returns the days of a workspace, by the zone that bounds them; `rules` the current
    rules.
    """

    def __init__(
        self,
        seed: int,
        days_of: Callable[[Profile], Days],
        rules: Callable[[], Rules] = Rules,
    ) -> None:
        self._seed = seed
        self._days_of = days_of
        self._rules = rules
        self._draft = lru_cache(maxsize=65_536)(self._draw)
        self._mood = lru_cache(maxsize=4_096)(self._draw_mood)
        self._leads_of = lru_cache(maxsize=65_536)(self._draw_leads)
        self._recorded_at = lru_cache(maxsize=131_072)(self._draw_recorded_at)

    def series(self, profile: Profile, first: date, last: date, now: datetime) -> list[Day]:
        """One Day for each date from `first` to `last`, both included, as known at `now`."""
        bounds, rules = self._days_of(profile), self._rules()
        around = self.leads(
            profile, first - timedelta(_DAYS_BEFORE), last + timedelta(_DAYS_AFTER), now
        )
        leads = Counter(bounds.date_of(it.counted_at(rules.leads_count_by)) for it in around)
        days = []
        for offset in range((last - first).days + 1):
            day = first + timedelta(days=offset)
            counts = self.shown(profile, day, now)
            if counts is not NOTHING:
                counts = counts._replace(interested=leads[day])
            days.append(counts)
        return days

    def shown(self, profile: Profile, day: date, now: datetime) -> Day:
        """The counts of a day as known at `now`; `interested` means nothing."""
        bounds, revised_days = self._days_of(profile), self._rules().revised_days
        today = bounds.date_of(now)
        if not profile.start <= day <= today:
            return NOTHING
        draft = self._draft(profile, day)
        if day == today:
            return draft.so_far(bounds.fraction_passed(now), revised_days)
        return draft.aged((today - day).days, revised_days)

    def leads(self, profile: Profile, first: date, last: date, now: datetime) -> Iterator[Lead]:
        """The leads marked until `now` whose replies came on these business dates, in order."""
        last = min(last, self._days_of(profile).date_of(now))
        day = max(first, profile.start)
        while day <= last:
            yield from (lead for lead in self.leads_of(profile, day) if lead.marked_at <= now)
            day += timedelta(days=1)

    def leads_of(self, profile: Profile, day: date) -> tuple[Lead, ...]:
        """The leads whose replies came on a business date, whenever they are marked."""
        if day < profile.start:
            return ()
        return self._leads_of(profile, day, self._days_of(profile), self._rules().revised_days)

    def final(self, profile: Profile, day: date) -> Day:
        """The counts of a day once nothing more comes in; `interested` by the day of the reply."""
        return self._draft(profile, day).last if day >= profile.start else NOTHING

    def planned(self, profile: Profile, day: date) -> int:
        """Mails that the campaigns plan to send today or on a later day."""
        return self.final(profile, day).sent

    def happened_at(self, profile: Profile, day: date, count: CountName, index: int) -> datetime:
        """When number `index` (from 0) of a count's events happened, on its own business date.

        Those that the day shows when it closes happened when the count rose; the late ones happened
        after these.
        """
        draft, revised_days = self._draft(profile, day), self._rules().revised_days
        last: int = getattr(draft.last, count)
        at_close: int = getattr(draft.aged(0, revised_days), count)
        if index < at_close:
            fraction = _fraction_at((index + 1 - draft.daily_threshold) / at_close)
        else:
            latest = (at_close - draft.daily_threshold) / at_close if at_close else 0.5
            late = (index - at_close + 1) / (last - at_close + 1)
            fraction = _fraction_at(latest + (1 - latest) * late)
        return self._days_of(profile).moment(day, fraction)

    def recorded_at(self, profile: Profile, day: date, count: CountName, index: int) -> datetime:
        """When Email Bison recorded it, and so counts it: late ones some midnights later."""
        bounds, revised_days = self._days_of(profile), self._rules().revised_days
        return self._recorded_at(profile, day, count, index, bounds, revised_days)

    def _draw_recorded_at(
        self,
        profile: Profile,
        day: date,
        count: CountName,
        index: int,
        bounds: Days,
        revised_days: int,
    ) -> datetime:
        draft = self._draft(profile, day)
        if index < getattr(draft.aged(0, revised_days), count):
            return self.happened_at(profile, day, count, index)
        ages = range(1, LONGEST_REVISION + 1)
        age = next(age for age in ages if getattr(draft.aged(age, revised_days), count) > index)
        return bounds.moment(day + timedelta(days=age), 0)

    def _draw_leads(
        self, profile: Profile, day: date, bounds: Days, revised_days: int
    ) -> tuple[Lead, ...]:
        """The leads among a day's replies, the first ones.

        Most are marked within hours and some after a day or two, at the earliest when the reply is
        recorded; the mail went out on a weekday, up to six days before. Nobody is marked, and no
        mail of a lead goes out, on a day on which the workspace is quiet.
        """
        draft = self._draft(profile, day)
        at_close = draft.aged(0, revised_days).replied
        leads = []
        for index in range(draft.last.interested):
            chance = uniforms(self._seed, profile.workspace_id, "lead", day.toordinal(), index)
            received_at = self.happened_at(profile, day, "replied", index)
            hours = 1 + 8 * chance[1] ** 2 if chance[0] < 0.75 else 9 + 60 * chance[1]
            recorded_at = received_at
            if index >= at_close:
                recorded_at = self.recorded_at(profile, day, "replied", index)
            sent_at = received_at - timedelta(hours=1 + 90 * chance[2] ** 2)
            while bounds.date_of(sent_at).weekday() >= 5:
                sent_at -= timedelta(days=1)
            lead = Lead(
                day=day,
                index=index,
                sent_at=sent_at,
                received_at=received_at,
                marked_at=recorded_at + timedelta(hours=hours),
            )
            about = (bounds.date_of(lead.sent_at), bounds.date_of(lead.marked_at))
            if about[0] >= profile.start and not any(map(profile.is_quiet_on, about)):
                leads.append(lead)
        return tuple(leads)

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
