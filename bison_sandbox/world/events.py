"""The counted events of a workspace, as many as the series counts, in order of their recording."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from heapq import merge
from itertools import dropwhile, islice, takewhile
from uuid import UUID

from bison_sandbox.world.agency import Profile, uniforms
from bison_sandbox.world.clock import Days
from bison_sandbox.world.made import COUNT_OF_TYPE, MadeEvent, MadeEvents
from bison_sandbox.world.numbers import LONGEST_REVISION, CountName, Lead, Numbers
from bison_sandbox.world.replies import (
    FIRST_DAY,
    Person,
    Replies,
    Reply,
    invented_reply,
    made_reply,
    number_of,
    person,
)

KEPT = timedelta(days=10)
"""How long the feed lists an event."""

_TYPES = tuple(COUNT_OF_TYPE)
_COUNTS: Mapping[str, CountName] = {
    "email_sent": "sent",
    "lead_replied": "replied",
    "email_bounced": "bounced",
    "lead_unsubscribed": "unsubscribed",
}
_KINDS = {"lead_replied": 0, "email_bounced": 1, "lead_unsubscribed": 2}
_SENT, _SENT_A_DAY = 5 * 10**8, 10**4
_LONGEST_DELAY = timedelta(days=LONGEST_REVISION + 4)
"""From the day to which an event belongs to its recording."""

_SINCE = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Event:
    """One event; all moments are in UTC.

    `number` identifies it among its type's in the workspace. It happened at `happened_at`, on the
    day that counts it (a lead's may be another), and Email Bison recorded it at `recorded_at`.
    `sent_at` is when the mail went out that it is about.
    """

    workspace_id: int
    type: str
    number: int
    recorded_at: datetime
    happened_at: datetime
    sent_at: datetime
    person: Person
    reply: Reply | None

    @property
    def id(self) -> int:
        """Its id in the feed, which grows with the time of recording.

        Numbers of one second and type differ by less than the eight days that they can belong to.
        """
        seconds = (self.recorded_at - _SINCE) // timedelta(seconds=1)
        place = self.workspace_id % 600 * len(_TYPES) + _TYPES.index(self.type)
        return (seconds * 600 * len(_TYPES) + place) * 8_000 + self.number % 8_000

    @property
    def uuid(self) -> UUID:
        """Its uuid in the feed."""
        chance = uniforms("event", self.workspace_id, self.type, self.number)[0]
        return UUID(int=int(chance * 2**32) << 96 | self.id, version=4)


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where an event is found, which costs little; the event itself is built when it is shown."""

    recorded_at: datetime
    build: Callable[[], Event]


class Events:
    """The events of the series and those that were made, by the time of their recording."""

    def __init__(
        self,
        seed: int,
        numbers: Numbers,
        made: MadeEvents,
        replies: Replies,
        days_of: Callable[[Profile], Days],
    ) -> None:
        self._seed = seed
        self._numbers = numbers
        self._made = made
        self._replies = replies
        self._days_of = days_of

    def newest(
        self, profile: Profile, types: tuple[str, ...], since: datetime, until: datetime
    ) -> Iterator[Callable[[], Event]]:
        """What builds each event that was recorded after `since` until `until`, newest first."""
        series = self._of_series(profile, types, since, until)
        made = self._made_ones(profile, types, until)
        return _between(merge(series, made, key=_recording, reverse=True), since, until)

    def newest_of_series(
        self, profile: Profile, types: tuple[str, ...], since: datetime, until: datetime
    ) -> Iterator[Callable[[], Event]]:
        """The same without the events that were made."""
        return _between(self._of_series(profile, types, since, until), since, until)

    def _of_series(
        self, profile: Profile, types: tuple[str, ...], since: datetime, until: datetime
    ) -> Iterator[_Entry]:
        bounds = self._days_of(profile)
        first, last = bounds.date_of(since - _LONGEST_DELAY), bounds.date_of(until)
        days = [last - timedelta(days=offset) for offset in range((last - first).days + 1)]
        streams = [self._of_day(profile, each, day, until) for day in days for each in types]
        return merge(*streams, key=_recording, reverse=True)

    def from_made(self, event: MadeEvent) -> Event:
        """An event that was made, as all others are shown."""
        reply = None
        if event.type in ("lead_replied", "lead_interested", "email_bounced"):
            is_lead = event.type == "lead_interested"
            reply = made_reply(self._seed, event, interested=is_lead)
        return Event(
            workspace_id=event.workspace_id,
            type=event.type,
            number=event.person_number,
            recorded_at=event.recorded_at,
            happened_at=event.happened_at,
            sent_at=event.sent_at,
            person=person(self._seed, event.workspace_id, event.person_number),
            reply=reply,
        )

    def _made_ones(
        self, profile: Profile, types: tuple[str, ...], until: datetime
    ) -> Iterator[_Entry]:
        events = [it for it in self._made.of(profile.workspace_id, until) if it.type in types]
        # The clock may have been set back between them.
        for event in sorted(events, key=lambda it: it.recorded_at, reverse=True):
            yield _Entry(event.recorded_at, partial(self.from_made, event))

    def _of_day(
        self, profile: Profile, event_type: str, day: date, until: datetime
    ) -> Iterator[_Entry]:
        """The events that belong to a day of the series, newest first, as known at `until`."""
        if event_type == "lead_interested":
            leads = self._numbers.leads_of(profile, day)
            for lead in sorted(leads, key=lambda it: it.marked_at, reverse=True):
                yield _Entry(lead.marked_at, partial(self._marking, profile, lead))
            return
        count = _COUNTS.get(event_type)
        if count is None:
            return
        shown = self._numbers.shown(profile, day, until)
        # A later one of a day has a higher index, also if it is recorded days later.
        for index in reversed(range(getattr(shown, count))):
            at = self._numbers.recorded_at(profile, day, count, index)
            yield _Entry(at, partial(self._counted, profile, event_type, day, index, at))

    def _marking(self, profile: Profile, lead: Lead) -> Event:
        reply = self._replies.at(profile, lead.day, lead.index, interested=True)
        return Event(
            workspace_id=profile.workspace_id,
            type="lead_interested",
            number=reply.id,
            recorded_at=lead.marked_at,
            happened_at=lead.marked_at,
            sent_at=lead.sent_at,
            person=reply.person,
            reply=reply,
        )

    def _counted(
        self, profile: Profile, event_type: str, day: date, index: int, recorded_at: datetime
    ) -> Event:
        """An event of any other type."""
        happened_at = self._numbers.happened_at(profile, day, _COUNTS[event_type], index)
        number = self._number(profile, event_type, day, index)
        reply = None
        if event_type == "lead_replied":
            reply = self._replies.at(profile, day, index, interested=False)
        elif event_type == "email_bounced":
            reply = invented_reply(
                self._seed, profile.workspace_id, number, happened_at, bounced=True
            )
        return Event(
            workspace_id=profile.workspace_id,
            type=event_type,
            number=number,
            recorded_at=recorded_at,
            happened_at=happened_at,
            sent_at=self._sent_at(profile, event_type, day, index, happened_at),
            person=reply.person if reply else person(self._seed, profile.workspace_id, number),
            reply=reply,
        )

    def _number(self, profile: Profile, event_type: str, day: date, index: int) -> int:
        if event_type != "email_sent":
            return number_of(profile.workspace_id, day, index, _KINDS[event_type])
        of_workspace = number_of(profile.workspace_id, date.fromordinal(FIRST_DAY), 0)
        return of_workspace + _SENT + (day.toordinal() - FIRST_DAY) * _SENT_A_DAY + index

    def _sent_at(
        self, profile: Profile, event_type: str, day: date, index: int, happened_at: datetime
    ) -> datetime:
        """When the mail went out that the event is about; a lead's is the one of its marking."""
        if event_type == "email_sent":
            return happened_at
        if event_type == "lead_replied":
            leads = self._numbers.leads_of(profile, day)
            found = next((lead.sent_at for lead in leads if lead.index == index), None)
            if found is not None:
                return found
        longest = 0.2 if event_type == "email_bounced" else 72
        chance = uniforms(self._seed, profile.workspace_id, event_type, day.toordinal(), index)
        return happened_at - timedelta(hours=0.05 + longest * chance[0])


def _recording(entry: _Entry) -> datetime:
    return entry.recorded_at


def _between(
    entries: Iterable[_Entry], since: datetime, until: datetime
) -> Iterator[Callable[[], Event]]:
    """What builds the events recorded after `since` until `until`, of entries, newest first."""
    past = dropwhile(lambda it: it.recorded_at > until, entries)
    return (it.build for it in takewhile(lambda it: it.recorded_at > since, past))


class Walk:
    """What the pages of a list have shown, so that the next page begins where the last one ended.

    Without it, each page would work out all rows before its own once more.
    """

    def __init__(self) -> None:
        self._key: object = None
        self._shown: list[Callable[[], Event]] = []
        self._rest: Iterator[Callable[[], Event]] = iter(())

    def part(
        self,
        key: object,
        begin: Callable[[], Iterator[Callable[[], Event]]],
        start: int,
        stop: int,
    ) -> list[Callable[[], Event]]:
        """The rows from `start` to `stop`; the list begins again when its key is another one."""
        if key != self._key:
            self._key, self._shown, self._rest = key, [], begin()
        self._shown += islice(self._rest, max(0, stop - len(self._shown)))
        return self._shown[start:stop]
