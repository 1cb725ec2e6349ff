"""Invented replies that fit the series, and leads marked interested while the sandbox runs."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from heapq import merge
from itertools import islice
from uuid import UUID

from bison_sandbox.world.agency import Profile, uniforms, words
from bison_sandbox.world.clock import Days, timestamp
from bison_sandbox.world.numbers import Day, Numbers

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


@dataclass(frozen=True)
class Reply:
    """One reply of a lead; `received_at` is when the mail came in, UTC."""

    id: int
    uuid: UUID
    lead_id: int
    interested: bool
    received_at: datetime
    first_name: str
    last_name: str
    company: str
    text: str

    @property
    def from_name(self) -> str:
        """The sender's name."""
        return f"{self.first_name} {self.last_name}"

    @property
    def from_email_address(self) -> str:
        """The sender's address."""
        return f"{self.first_name}.{self.last_name}@{self.company}.example".lower()


def invented_reply(
    reply_id: int, received_at: datetime, *, interested: bool, chance: Sequence[float]
) -> Reply:
    """The reply with this id, drawn from at least five numbers in [0, 1); its lead's id follows."""
    return Reply(
        id=reply_id,
        uuid=UUID(int=int(chance[3] * 2**32) << 96 | reply_id, version=4),
        lead_id=reply_id * 2 + 1,
        interested=interested,
        received_at=received_at,
        first_name=pick(_FIRST, chance[0]),
        last_name=pick(_LAST, chance[1]),
        company=pick(_COMPANIES, chance[2]),
        text=pick(_INTERESTED if interested else _OTHER, chance[4]),
    )


def reply_row(reply: Reply, text: Callable[[str], str] = str) -> dict[str, object]:
    """A reply as the vendor shows it; `text` converts each of its texts."""
    body = text(reply.text)
    return {
        "id": reply.id,
        "uuid": str(reply.uuid),
        "email_subject": text("Re: a question"),
        "interested": reply.interested,
        "automated_reply": False,
        "text_body": body,
        "html_body": f"<p>{body}</p>",
        "date_received": timestamp(reply.received_at),
        "type": "Tracked Reply",
        "folder": "Inbox",
        "from_name": reply.from_name,
        "from_email_address": reply.from_email_address,
        "to": [{"name": "Avery Quill", "address": "avery@agency.example"}],
        "cc": None,
        "lead_id": reply.lead_id,
    }


def pick(choices: Sequence[str], chance: float) -> str:
    """One of the choices, by a number in [0, 1)."""
    return choices[int(chance * len(choices))]


_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHORTEST_HOURS, _LONGEST_HOURS = 1.0, 9.0
"""Time between the reply and the marking."""


@dataclass(frozen=True)
class Mark:
    """One lead that turned interested at `marked_at`, hours after its reply came in."""

    workspace_id: int
    marked_at: datetime
    reply: Reply


class Marks:
    """The marks of every workspace; a mark is never removed.

    `days_of` returns the days of a workspace, by the zone that bounds them.
    """

    def __init__(self, seed: int, days_of: Callable[[Profile], Days]) -> None:
        self._seed = seed
        self._days_of = days_of
        self._last_id = 0
        self._of: dict[int, list[Mark]] = {}

    def add(self, workspace_id: int, now: datetime) -> Mark:
        """Mark one more lead of a workspace.

        Its ids derive from the microsecond of the marking, so a restarted sandbox never repeats a
        lead.
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
        """The replies of leads that were marked on or after a business date, newest first."""
        marks = [mark for mark, day in self._known(profile, now) if day >= first]
        return sorted((mark.reply for mark in marks), key=lambda it: it.received_at, reverse=True)

    def added_to(
        self, days: Iterable[Day], profile: Profile, first: date, now: datetime
    ) -> list[Day]:
        """Consecutive days from `first` on, plus the leads that were marked on each of them.

        A marked lead's reply counts on the day of the marking, whenever it came in: no day has more
        interested replies than replies.
        """
        marked = Counter(day for _, day in self._known(profile, now))
        return [
            day._replace(replied=day.replied + more, interested=day.interested + more)
            if (more := marked[first + timedelta(days=offset)])
            else day
            for offset, day in enumerate(days)
        ]

    def _known(self, profile: Profile, now: datetime) -> Iterable[tuple[Mark, date]]:
        """Marks of now or earlier, each with its business date."""
        days = self._days_of(profile)
        for mark in self._of.get(profile.workspace_id, ()):
            if mark.marked_at <= now:
                yield mark, days.date_of(mark.marked_at)


KEPT_DAYS = 60


@dataclass(frozen=True)
class _Slot:
    day: date
    index: int
    interested: bool


class Replies:
    """The replies of the last 60 business days, as many as the series counts."""

    def __init__(
        self, seed: int, numbers: Numbers, marks: Marks, days_of: Callable[[Profile], Days]
    ) -> None:
        self._seed = seed
        self._numbers = numbers
        self._marks = marks
        self._days_of = days_of

    def count(self, profile: Profile, now: datetime, *, only_interested: bool) -> int:
        """The number of replies."""
        slots = sum(1 for _ in self._slots(profile, now, only_interested))
        return slots + len(self._marked(profile, now))

    def newest(
        self, profile: Profile, now: datetime, start: int, stop: int, *, only_interested: bool
    ) -> list[Reply]:
        """The replies from `start` to `stop`, counted from the newest one."""
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
            # The first replies of a day are the interested ones: a reply keeps its id when later
            # ones come in or are marked.
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
