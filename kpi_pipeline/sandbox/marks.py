"""Leads that somebody marked interested while the sandbox runs, on top of what it invents."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from kpi_pipeline.sandbox.clock import Days
from kpi_pipeline.sandbox.estate import Profile
from kpi_pipeline.sandbox.numbers import Day
from kpi_pipeline.sandbox.reply import Reply, invented_reply
from kpi_pipeline.sandbox.seeded import uniforms

_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHORTEST_HOURS, _LONGEST_HOURS = 1.0, 9.0
"""How long before the marking the reply came in."""


@dataclass(frozen=True)
class Mark:
    """One lead that turned interested at `marked_at`, hours after its reply came in."""

    workspace_id: int
    marked_at: datetime
    reply: Reply


class Marks:
    """The marks of every workspace; one that was made stays.

    `days_of` tells by which zone a workspace's days are bounded.
    """

    def __init__(self, seed: int, days_of: Callable[[Profile], Days]) -> None:
        self._seed = seed
        self._days_of = days_of
        self._last_id = 0
        self._of: dict[int, list[Mark]] = {}

    def add(self, workspace_id: int, now: datetime) -> Mark:
        """Mark one more lead of a workspace.

        Its ids begin at the microsecond of the marking, so that a sandbox that is started again
        tells of new leads, and not of those that it told of before.
        """
        self._last_id = max(self._last_id + 1, (now - _EPOCH) // _MICROSECOND)
        chance = uniforms(self._seed, workspace_id, "mark", self._last_id)
        hours = _SHORTEST_HOURS + (_LONGEST_HOURS - _SHORTEST_HOURS) * chance[5] ** 2
        received_at = now - timedelta(hours=hours)
        reply = invented_reply(self._last_id, received_at, interested=True, chance=chance)
        mark = Mark(workspace_id, now, reply)
        self._of.setdefault(workspace_id, []).append(mark)
        return mark

    def replies(self, profile: Profile, first: date, now: datetime) -> list[Reply]:
        """The replies of the leads that were marked since a business date, newest first."""
        marks = [mark for mark, day in self._known(profile, now) if day >= first]
        return sorted((mark.reply for mark in marks), key=lambda it: it.received_at, reverse=True)

    def added_to(
        self, days: Iterable[Day], profile: Profile, first: date, now: datetime
    ) -> list[Day]:
        """Consecutive days from `first` on, with the leads that were marked on each of them.

        A marked lead's reply counts on the day of the marking, too, whenever it came in: so no
        day has more interested replies than replies.
        """
        marked = Counter(day for _, day in self._known(profile, now))
        return [
            day._replace(replied=day.replied + more, interested=day.interested + more)
            if (more := marked[first + timedelta(days=offset)])
            else day
            for offset, day in enumerate(days)
        ]

    def _known(self, profile: Profile, now: datetime) -> Iterable[tuple[Mark, date]]:
        """Marks that were made by now, each with its business date."""
        days = self._days_of(profile)
        for mark in self._of.get(profile.workspace_id, ()):
            if mark.marked_at <= now:
                yield mark, days.date_of(mark.marked_at)
