"""Events that are made while the sandbox runs, on top of those that the series counts."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from bison_sandbox.world.agency import Profile, uniforms
from bison_sandbox.world.clock import Days
from bison_sandbox.world.numbers import Day, Rules, counted_at

COUNT_OF_TYPE = {
    "email_sent": "sent",
    "lead_replied": "replied",
    "lead_interested": "interested",
    "email_bounced": "bounced",
    "lead_unsubscribed": "unsubscribed",
}
"""The types of event that are counted, and the counts that they raise."""

_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHORTEST_HOURS, _LONGEST_HOURS = 1.0, 9.0
"""Time between the reply and the marking."""


@dataclass(frozen=True)
class MadeEvent:
    """One event; all moments are in UTC.

    `person_number` tells apart the people; the events of one reply have the same. `recorded_at` is
    when it was made, `happened_at` when it happened: for a marking the same, for a reply the moment
    of the mail, for a sent mail `sent_at`.
    """

    workspace_id: int
    type: str
    person_number: int
    recorded_at: datetime
    happened_at: datetime
    sent_at: datetime
    received_at: datetime

    def counted_at(self, rules: Rules) -> datetime:
        """The moment whose day counts it."""
        if self.type != "lead_interested":
            return self.happened_at
        return counted_at(rules.leads_count_by, self.sent_at, self.received_at, self.happened_at)


class MadeEvents:
    """The made events of every workspace; none is ever removed.

    `days_of` returns the days of a workspace, by the zone that bounds them, and `rules` the current
    rules of counting.
    """

    def __init__(
        self, seed: int, days_of: Callable[[Profile], Days], rules: Callable[[], Rules]
    ) -> None:
        self._seed = seed
        self._days_of = days_of
        self._rules = rules
        self._last_id = 0
        self._of: dict[int, list[MadeEvent]] = {}

    def mark(self, workspace_id: int, now: datetime) -> tuple[MadeEvent, MadeEvent]:
        """A lead is marked interested now; its reply, of hours before, is recorded now, too."""
        number, chance = self._next(workspace_id, now)
        hours = _SHORTEST_HOURS + (_LONGEST_HOURS - _SHORTEST_HOURS) * chance[5] ** 2
        received_at = now - timedelta(hours=hours)
        sent_at = received_at - timedelta(hours=2 + 70 * chance[6])
        reply, marking = (
            MadeEvent(workspace_id, kind, number, now, happened_at, sent_at, received_at)
            for kind, happened_at in (("lead_replied", received_at), ("lead_interested", now))
        )
        self._of.setdefault(workspace_id, []).extend((reply, marking))
        return reply, marking

    def add(self, workspace_id: int, event_type: str, now: datetime) -> MadeEvent:
        """An event of another counted type happens now."""
        number, chance = self._next(workspace_id, now)
        before = {"email_sent": 0.0, "email_bounced": 0.1 * chance[6]}
        sent_at = now - timedelta(hours=before.get(event_type, 2 + 70 * chance[6]))
        event = MadeEvent(workspace_id, event_type, number, now, now, sent_at, now)
        self._of.setdefault(workspace_id, []).append(event)
        return event

    def of(self, workspace_id: int, now: datetime) -> Iterator[MadeEvent]:
        """The events of a workspace that were recorded until `now`, in order of their making."""
        return (each for each in self._of.get(workspace_id, ()) if each.recorded_at <= now)

    def made_in(self, workspace_id: int) -> int:
        """How many events of a workspace were made."""
        return len(self._of.get(workspace_id, ()))

    def added_to(
        self, days: Iterable[Day], profile: Profile, first: date, now: datetime
    ) -> list[Day]:
        """Consecutive days from `first` on, plus the events that count on each of them."""
        bounds, rules = self._days_of(profile), self._rules()
        counted = list(days)
        for event in self.of(profile.workspace_id, now):
            offset = (bounds.date_of(event.counted_at(rules)) - first).days
            if 0 <= offset < len(counted):
                name = COUNT_OF_TYPE[event.type]
                more = getattr(counted[offset], name) + 1
                counted[offset] = counted[offset]._replace(**{name: more})
        return counted

    def _next(self, workspace_id: int, now: datetime) -> tuple[int, tuple[float, ...]]:
        """A new person's number, and chances.

        It derives from the microsecond, so a restarted sandbox never repeats a lead.
        """
        self._last_id = max(self._last_id + 1, (now - _EPOCH) // _MICROSECOND)
        return self._last_id, uniforms(self._seed, workspace_id, "made", self._last_id)
