"""Invented replies that fit the series: who wrote, when, and what."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from heapq import merge
from itertools import islice

from kpi_pipeline.sandbox.clock import Days
from kpi_pipeline.sandbox.estate import Profile
from kpi_pipeline.sandbox.marks import Marks
from kpi_pipeline.sandbox.numbers import Numbers
from kpi_pipeline.sandbox.reply import Reply, invented_reply
from kpi_pipeline.sandbox.seeded import uniforms

KEPT_DAYS = 60


@dataclass(frozen=True)
class _Slot:
    day: date
    index: int
    interested: bool


class Correspondence:
    """The replies of the last 60 business days, as many as the series counts of them."""

    def __init__(
        self, seed: int, numbers: Numbers, marks: Marks, days_of: Callable[[Profile], Days]
    ) -> None:
        self._seed = seed
        self._numbers = numbers
        self._marks = marks
        self._days_of = days_of

    def count(self, profile: Profile, now: datetime, *, only_interested: bool) -> int:
        """How many replies there are."""
        slots = sum(1 for _ in self._slots(profile, now, only_interested))
        return slots + len(self._marked(profile, now))

    def newest(
        self, profile: Profile, now: datetime, start: int, stop: int, *, only_interested: bool
    ) -> list[Reply]:
        """Some of the replies, counted from the newest one."""
        slots = self._slots(profile, now, only_interested)
        marked = self._marked(profile, now)
        if not marked:
            return [self._reply(profile, slot) for slot in islice(slots, start, stop)]
        drawn = (self._reply(profile, slot) for slot in slots)
        both = merge(drawn, marked, key=lambda it: it.received_at, reverse=True)
        return list(islice(both, start, stop))

    def _marked(self, profile: Profile, now: datetime) -> list[Reply]:
        return self._marks.replies(profile, self._first_day(profile, now), now)

    def _first_day(self, profile: Profile, now: datetime) -> date:
        return self._days_of(profile).date_of(now) - timedelta(days=KEPT_DAYS - 1)

    def _slots(self, profile: Profile, now: datetime, only_interested: bool) -> Iterator[_Slot]:
        first = self._first_day(profile, now)
        today = first + timedelta(days=KEPT_DAYS - 1)
        days = self._numbers.series(profile, first, today, now)
        for offset in reversed(range(KEPT_DAYS)):
            counts = days[offset]
            # The first replies of a day are the interested ones, so that a reply keeps its id
            # when later ones come in or are marked.
            shown = counts.interested if only_interested else counts.replied
            for index in reversed(range(shown)):
                yield _Slot(first + timedelta(days=offset), index, index < counts.interested)

    def _reply(self, profile: Profile, slot: _Slot) -> Reply:
        day_number = slot.day.toordinal()
        chance = uniforms(self._seed, profile.workspace_id, "reply", day_number, slot.index)
        reply_id = profile.workspace_id * 10**8 + (day_number - 700_000) * 1_000 + slot.index
        fraction = self._numbers.reply_fraction(profile, slot.day, slot.index)
        received_at = self._days_of(profile).moment(slot.day, fraction)
        return invented_reply(reply_id, received_at, interested=slot.interested, chance=chance)
