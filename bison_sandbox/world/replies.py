"""Invented replies that fit the series, and the people who write them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from heapq import merge
from itertools import islice
from uuid import UUID

from bison_sandbox.world.agency import Profile, uniforms, words
from bison_sandbox.world.clock import Days, timestamp
from bison_sandbox.world.made import MadeEvent, MadeEvents
from bison_sandbox.world.numbers import Numbers

_FIRST = words("Ada Bruno Clara Dario Edda Farid Greta Hugo Ines Jonas Kira Leon Mina Olga")
_LAST = words("Abend Brook Castor Dunmore Ellery Fenwick Garrow Holt Imber Jessop Kell Lowen")
_COMPANIES = words("alder-works bright-lane corner-labs delta-yard east-mill fieldstone")
_INTERESTED = (
    "Sounds useful. Could we talk on Thursday?",
    "Yes, please send me the details.",
    "Good timing: we are looking at this now. What does it cost?",
)
_OTHER = (
    "Not for us at the moment, thank you.",
    "Please write to my colleague instead.",
    "We have a supplier for this already.",
)
_BOUNCE = "The address could not be found."


@dataclass(frozen=True)
class Person:
    """Someone to whom mails go; `id` is the lead's."""

    id: int
    first_name: str
    last_name: str
    company: str

    @property
    def name(self) -> str:
        """First and last name."""
        return f"{self.first_name} {self.last_name}"

    @property
    def address(self) -> str:
        """The email address."""
        return f"{self.first_name}.{self.last_name}@{self.company}.example".lower()


@dataclass(frozen=True)
class Reply:
    """One mail that came back, of a lead or of a mail server; `received_at` in UTC."""

    id: int
    uuid: UUID
    person: Person
    interested: bool
    received_at: datetime
    text: str
    bounced: bool = False


def person(seed: int, workspace_id: int, number: int) -> Person:
    """The person to whom event or reply `number` of a workspace belongs."""
    chance = uniforms(seed, workspace_id, "person", number)
    return Person(
        id=number * 2 + 1,
        first_name=pick(_FIRST, chance[0]),
        last_name=pick(_LAST, chance[1]),
        company=pick(_COMPANIES, chance[2]),
    )


def invented_reply(
    seed: int,
    workspace_id: int,
    number: int,
    received_at: datetime,
    *,
    interested: bool = False,
    bounced: bool = False,
    written_by: int | None = None,
) -> Reply:
    """The reply with this id; `written_by` is an earlier reply of the same person."""
    chance = uniforms(seed, workspace_id, "reply", number)
    text = pick(_INTERESTED if interested else _OTHER, chance[1])
    return Reply(
        id=number,
        uuid=UUID(int=int(chance[0] * 2**32) << 96 | number, version=4),
        person=person(seed, workspace_id, number if written_by is None else written_by),
        interested=interested,
        received_at=received_at,
        text=_BOUNCE if bounced else text,
        bounced=bounced,
    )


def reply_row(
    reply: Reply, text: Callable[[str], str] = str, subject: str = "subject"
) -> dict[str, object]:
    """A reply as the vendor shows it; `text` converts each of its texts.

    The member `subject` of a list is called `email_subject` in an event.
    """
    body = text(reply.text)
    writer = reply.person
    return {
        "id": reply.id,
        "uuid": str(reply.uuid),
        subject: text("Undeliverable: a question" if reply.bounced else "Re: a question"),
        "interested": reply.interested,
        "automated_reply": reply.bounced,
        "text_body": body,
        "html_body": f"<p>{body}</p>",
        "raw_body": None,
        "headers": None,
        "date_received": timestamp(reply.received_at),
        "type": "Bounced" if reply.bounced else "Tracked Reply",
        "tracked_reply": not reply.bounced,
        "folder": "Bounced" if reply.bounced else "Inbox",
        "raw_message_id": f"<{reply.uuid}@mail.example>",
        "parent_id": None,
        "from_name": "Mail Delivery Subsystem" if reply.bounced else writer.name,
        "from_email_address": "mailer-daemon@mail.example" if reply.bounced else writer.address,
        "primary_to_email_address": "avery@agency.example",
        "to": [{"name": "Avery Quill", "address": "avery@agency.example"}],
        "cc": None,
        "bcc": None,
        "attachments": [],
        "lead_id": writer.id,
    }


def pick(choices: Sequence[str], chance: float) -> str:
    """One of the choices, by a number in [0, 1)."""
    return choices[int(chance * len(choices))]


KEPT_DAYS = 60
_SECOND_MAIL = 0.08
"""The share of replies that the person of the one before writes; as many the day after."""

FIRST_DAY = 700_000
"""The ordinal of the day from which numbers count; long before any."""

_OF_A_WORKSPACE, _OF_A_KIND, _OF_A_DAY = 10**9, 10**8, 1_000


def number_of(workspace_id: int, day: date, index: int, kind: int = 0) -> int:
    """The number of an event of the series; its ids derive from it. Below 1,000 a day and kind."""
    day_number = day.toordinal() - FIRST_DAY
    return workspace_id * _OF_A_WORKSPACE + kind * _OF_A_KIND + day_number * _OF_A_DAY + index


@dataclass(frozen=True)
class _Slot:
    day: date
    index: int
    interested: bool


class Replies:
    """The replies of the series, and those that were made while the sandbox runs."""

    def __init__(
        self, seed: int, numbers: Numbers, made: MadeEvents, days_of: Callable[[Profile], Days]
    ) -> None:
        self._seed = seed
        self._numbers = numbers
        self._made = made
        self._days_of = days_of
        self._people_on = lru_cache(maxsize=16_384)(self._draw_people)

    def count(self, profile: Profile, now: datetime, *, only_interested: bool) -> int:
        """The number of replies of the last 60 business days."""
        slots = sum(1 for _ in self._slots(profile, now, only_interested))
        return slots + len(self._made_ones(profile, now, only_interested))

    def newest(
        self, profile: Profile, now: datetime, start: int, stop: int, *, only_interested: bool
    ) -> list[Reply]:
        """The replies of the last 60 days from `start` to `stop`, counted from the newest one."""
        slots = self._slots(profile, now, only_interested)
        made = self._made_ones(profile, now, only_interested)
        if not made:
            return [self._of(profile, slot) for slot in islice(slots, start, stop)]
        drawn = (self._of(profile, slot) for slot in slots)
        both = merge(drawn, made, key=lambda it: it.received_at, reverse=True)
        return list(islice(both, start, stop))

    def at(self, profile: Profile, day: date, index: int, *, interested: bool) -> Reply:
        """Reply number `index` (from 0) of a business date."""
        return invented_reply(
            self._seed,
            profile.workspace_id,
            number_of(profile.workspace_id, day, index),
            self._numbers.happened_at(profile, day, "replied", index),
            interested=interested,
            written_by=self._people_on(profile, day)[index],
        )

    def people(self, profile: Profile, first: date, last: date, now: datetime) -> int:
        """How many people wrote at least one of the replies that a period's series counts."""
        found: set[int] = set()
        days = self._numbers.series(profile, first, last, now)
        for offset, counts in enumerate(days):
            if counts.replied:
                day = first + timedelta(days=offset)
                found.update(self._people_on(profile, day)[: counts.replied])
        bounds = self._days_of(profile)
        made = {
            event.person_number
            for event in self._made.of(profile.workspace_id, now)
            if event.type == "lead_replied" and first <= bounds.date_of(event.happened_at) <= last
        }
        return len(found | made)

    def _draw_people(self, profile: Profile, day: date) -> tuple[int, ...]:
        """For each final reply of a day, the number of the first reply of the same person.

        A person who is interested writes no mail before that one, so a lead is marked once.
        """
        final = self._numbers.final(profile, day)
        before = day - timedelta(days=1)
        people: list[int] = []
        for index in range(final.replied):
            number = number_of(profile.workspace_id, day, index)
            chance = uniforms(self._seed, profile.workspace_id, "second mail", number)[0]
            if index < final.interested or chance > 2 * _SECOND_MAIL:
                people.append(number)
            elif chance < _SECOND_MAIL and people:
                people.append(people[-1])
            elif self._numbers.final(profile, before).replied:
                people.append(number_of(profile.workspace_id, before, 0))
            else:
                people.append(number)
        return tuple(people)

    def _made_ones(self, profile: Profile, now: datetime, only_interested: bool) -> list[Reply]:
        """The replies of events that were made, newest first."""
        first = self._first_day(profile, now)
        bounds = self._days_of(profile)
        events = list(self._made.of(profile.workspace_id, now))
        interested = {it.person_number for it in events if it.type == "lead_interested"}
        replies = [
            made_reply(self._seed, event, interested=event.person_number in interested)
            for event in events
            if event.type == "lead_replied"
            and (event.person_number in interested or not only_interested)
            and bounds.date_of(event.received_at) >= first
        ]
        return sorted(replies, key=lambda it: it.received_at, reverse=True)

    def _first_day(self, profile: Profile, now: datetime) -> date:
        return self._days_of(profile).date_of(now) - timedelta(days=KEPT_DAYS - 1)

    def _slots(self, profile: Profile, now: datetime, only_interested: bool) -> Iterator[_Slot]:
        first = self._first_day(profile, now)
        today = first + timedelta(days=KEPT_DAYS - 1)
        days = self._numbers.series(profile, first, today, now)
        leads = {(it.day, it.index) for it in self._numbers.leads(profile, first, today, now)}
        for offset in reversed(range(KEPT_DAYS)):
            day = first + timedelta(days=offset)
            for index in reversed(range(days[offset].replied)):
                interested = (day, index) in leads
                if interested or not only_interested:
                    yield _Slot(day, index, interested)

    def _of(self, profile: Profile, slot: _Slot) -> Reply:
        return self.at(profile, slot.day, slot.index, interested=slot.interested)


def made_reply(seed: int, event: MadeEvent, *, interested: bool) -> Reply:
    """The reply of an event that was made."""
    return invented_reply(
        seed,
        event.workspace_id,
        event.person_number,
        event.received_at,
        interested=interested,
        bounced=event.type == "email_bounced",
    )
