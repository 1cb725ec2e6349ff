"""Measures how Email Bison counts, by comparing its recorded events with its daily series.

Which time zone bounds its days, and which moment of an event decides the day on which it counts,
are documented nowhere. Each candidate is tried: events counted by its days must be as many as the
series has. What more than one candidate explains stays undecided.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from itertools import product
from zoneinfo import ZoneInfo

from kpi_pipeline.domain.calendar import business_date, day_start
from kpi_pipeline.domain.events.times import LEADS, Moment, TimedEvent, with_reply_times

# With fewer days, any agreement may be chance.
_FEWEST_DAYS = 5
# An event at night that is counted by the wrong day makes two days disagree.
_MARGIN = 2
# A candidate must explain two days of three, a time must be known of four events of five.
_AGREEING, _KNOWN = 2 / 3, 4 / 5
_ONE_DAY = timedelta(days=1)
_COMMON_ZONES = (
    "UTC",
    "America/New_York",
    "America/Chicago",
    "America/Denver",
    "America/Los_Angeles",
)

Series = Mapping[date, Mapping[str, int | None]]
"""Day → name of a count → number."""


class Subject(StrEnum):
    """The questions."""

    DAY_ZONE = "day_zone"
    """Which time zone bounds Email Bison's days."""
    LEADS_COUNT_BY = "leads_count_by"
    """Which of its moments decides the day of a lead."""
    QUIET_DAYS = "quiet_days"
    """Whether the series lists days without activity."""
    REVISED_AGE = "revised_age"
    """How many days old a day was that was still revised; the largest number seen."""


# Of a lead, the time in `campaign_event` is that of the marking, or of the reply.
_OF_LEADS = {Moment.RECORDED: "marking", Moment.REPLY: "reply", Moment.MAIL: "mail"}


@dataclass(frozen=True)
class Answer:
    """What the comparison tells of one question.

    `agreeing` has the number of days, of `days`, that each candidate explains, and `untested` the
    candidates that could not be tried. `possible` are those that may be right: one if the question
    is decided, none if no candidate explains the series. `note` says why nothing could be compared.
    """

    days: int
    agreeing: Mapping[str, int]
    possible: tuple[str, ...]
    untested: tuple[str, ...] = ()
    note: str = ""

    @property
    def value(self) -> str | None:
        """The answer, if it is decided."""
        return self.possible[0] if len(self.possible) == 1 else None

    def evidence(self) -> str:
        """How sure it is, the best candidate first: `UTC: 9 of 9 days agree; Asia/Tokyo: 4`."""
        ranked = sorted(self.agreeing.items(), key=lambda it: -it[1])
        texts = [
            f"{name}: {number} of {self.days}{'' if n else ' days agree'}"
            for n, (name, number) in enumerate(ranked)
        ]
        texts += [f"{name}: not tested, as too few events have this time" for name in self.untested]
        return "; ".join([*texts, self.note] if self.note else texts)


@dataclass(frozen=True)
class Comparison:
    """Events and series of the same days, all of which the feed covers and are over.

    `events` are those of the counts of which the feed was read completely.
    """

    events: Sequence[TimedEvent]
    series: Series
    days: Sequence[date]
    zones: Sequence[ZoneInfo]

    def day_zone(self) -> Answer:
        """The zone that bounds Email Bison's days.

        A day agrees if each count does, by the moment that explains it best. Counts that no zone
        and moment explain are left out: an instance may count what it lists no event of.
        """
        if not self.events:
            zones = tuple(zone.key for zone in self.zones)
            return Answer(len(self.days), {}, zones, note="the feed has no events to compare")
        tried = {
            (zone.key, count): self._best(count, zone)
            for zone, count in product(self.zones, self._counts())
        }
        usable = [
            count
            for count in self._counts()
            if max(len(tried[zone.key, count]) for zone in self.zones) >= _AGREEING * len(self.days)
        ]
        agreeing = {
            zone.key: len(
                set(self.days).intersection(*(tried[zone.key, count] for count in usable))
            )
            if usable
            else 0
            for zone in self.zones
        }
        return _answer(len(self.days), agreeing)

    def leads_count_by(self, zones: Sequence[ZoneInfo]) -> Answer:
        """Whether the day of its marking, its reply or its mail counts a lead.

        `zones` are those that may bound the days.
        """
        tested = [moment for moment in _OF_LEADS if self._known(LEADS, moment)]
        agreeing = {
            _OF_LEADS[moment]: max(len(self._agreeing(LEADS, moment, zone)) for zone in zones)
            for moment in tested
        }
        untested = tuple(name for moment, name in _OF_LEADS.items() if moment not in tested)
        return _answer(len(self.days), agreeing, untested)

    def revised_age(self, zone: ZoneInfo) -> int | None:
        """The age in days of the oldest day to which an event was added; None if none shows.

        Such an event was recorded days after the moment whose day counts it.
        """
        ages = []
        for count in self._counts():
            by_moment = {it: len(self._agreeing(count, it, zone)) for it in self._moments(count)}
            best = max(by_moment, key=by_moment.__getitem__)
            if by_moment[best] < by_moment[Moment.RECORDED] + _MARGIN:
                continue
            if by_moment[best] < _AGREEING * len(self.days):
                continue
            ages += [
                (business_date(it.recorded_at, zone) - business_date(it.times[best], zone)).days
                for it in self.events
                if it.count == count and best in it.times
            ]
        oldest = max(ages, default=0)
        return oldest if oldest > 0 else None

    def _counts(self) -> list[str]:
        return sorted({event.count for event in self.events})

    def _moments(self, count: str) -> list[Moment]:
        """The moments to try, the simplest first."""
        wanted = _OF_LEADS if count == LEADS else tuple(Moment)
        return [moment for moment in wanted if self._known(count, moment)]

    def _known(self, count: str, moment: Moment) -> bool:
        known = [moment in event.times for event in self.events if event.count == count]
        return bool(known) and sum(known) >= _KNOWN * len(known)

    def _best(self, count: str, zone: ZoneInfo) -> frozenset[date]:
        """The days that agree, by the moment that explains most days."""
        return max((self._agreeing(count, it, zone) for it in self._moments(count)), key=len)

    def _agreeing(self, count: str, moment: Moment, zone: ZoneInfo) -> frozenset[date]:
        found = Counter(
            business_date(event.times[moment], zone)
            for event in self.events
            if event.count == count and moment in event.times
        )
        return frozenset(day for day in self.days if found[day] == self.series[day][count])


def compare(
    events: Sequence[TimedEvent],
    series: Series,
    *,
    since: datetime,
    until: datetime,
    zones: Sequence[ZoneInfo],
) -> Comparison:
    """Prepare the comparison of a feed that was read from `since` to `until`.

    Its days lie wholly within this time in each of the zones, and not before the feed's first
    event, as the feed may go back less far than was asked.
    """
    kept = with_reply_times([it for it in events if it.recorded_at <= until])
    starts = [_first_whole_day(since, zone) for zone in zones]
    if kept:
        earliest = min(it.recorded_at for it in kept)
        starts.append(min(business_date(earliest, zone) for zone in zones))
    end = min(business_date(until, zone) for zone in zones)
    days = [day for day in sorted(series) if max(starts) <= day < end]
    return Comparison(kept, series, days, zones)


def quiet_days(series: Series, listed: Iterable[date]) -> Answer:
    """Whether the series lists days without activity; the candidates are `listed` and `left out`.

    Both are possible if there is no such day since the first one with activity, none if it lists
    some of them.
    """
    active = [day for day, counts in series.items() if any(counts.values())]
    first = min(active, default=date.max)
    quiet = {day for day in series if day > first and day not in active}
    agreeing = {"listed": len(quiet & set(listed)), "left out": len(quiet - set(listed))}
    possible = tuple(name for name, number in agreeing.items() if number == len(quiet))
    return Answer(len(quiet), agreeing, possible, note="" if quiet else "there were no such days")


def revised_since(before: Series, now: Series, last_read_on: date) -> int | None:
    """The age in days beyond which a day was still revised between two readings of the series.

    `last_read_on` is the date of the first of them. None if no closed day changed.
    """
    ages = [
        (last_read_on - day).days
        for day, counts in before.items()
        if day < last_read_on and day in now and dict(counts) != dict(now[day])
    ]
    return max(ages, default=None)


def candidate_zones(
    configured: Iterable[ZoneInfo], named: Iterable[str], now: datetime
) -> list[ZoneInfo]:
    """The zones to try: configured ones, those that events name as local, and common ones.

    Of zones with the same clock all year, only the first is kept: nothing tells them apart.
    """
    zones = [*configured, *map(_zone, _COMMON_ZONES), *map(_zone, sorted(set(named)))]
    instants = [now.astimezone(UTC) + timedelta(days=3 * n) for n in range(-61, 62)]
    found: dict[tuple[timedelta | None, ...], ZoneInfo] = {}
    for zone in zones:
        if zone is not None:
            found.setdefault(tuple(it.astimezone(zone).utcoffset() for it in instants), zone)
    return list(found.values())


def _answer(days: int, agreeing: Mapping[str, int], untested: tuple[str, ...] = ()) -> Answer:
    best = max(agreeing.values(), default=0)
    if days < _FEWEST_DAYS:
        note = f"fewer than {_FEWEST_DAYS} days decide nothing"
        return Answer(days, agreeing, (*agreeing, *untested), untested, note)
    possible: tuple[str, ...] = ()
    if best >= _AGREEING * days:
        possible = tuple(name for name, number in agreeing.items() if number > best - _MARGIN)
    return Answer(days, agreeing, (*possible, *untested), untested)


def _first_whole_day(since: datetime, zone: ZoneInfo) -> date:
    day = business_date(since, zone)
    return day if day_start(day, zone) >= since else day + _ONE_DAY


def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        return None
