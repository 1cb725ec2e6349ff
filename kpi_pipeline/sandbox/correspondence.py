"""Invented replies that fit the series: who wrote, when, and what."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

from kpi_pipeline.sandbox.clock import Days
from kpi_pipeline.sandbox.estate import Profile
from kpi_pipeline.sandbox.names import words
from kpi_pipeline.sandbox.numbers import Numbers
from kpi_pipeline.sandbox.seeded import uniforms

KEPT_DAYS = 60

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
    from_name: str
    from_email_address: str
    text: str


@dataclass(frozen=True)
class _Slot:
    day: date
    index: int
    interested: bool


class Correspondence:
    """The replies of the last 60 business days, as many as the series counts of them."""

    def __init__(self, seed: int, numbers: Numbers, days_of: Callable[[Profile], Days]) -> None:
        self._seed = seed
        self._numbers = numbers
        self._days_of = days_of

    def count(self, profile: Profile, now: datetime, *, only_interested: bool) -> int:
        """How many replies there are."""
        return sum(1 for _ in self._slots(profile, now, only_interested))

    def newest(
        self, profile: Profile, now: datetime, start: int, stop: int, *, only_interested: bool
    ) -> list[Reply]:
        """Some of the replies, counted from the newest one."""
        slots = list(self._slots(profile, now, only_interested))[start:stop]
        return [self._reply(profile, slot) for slot in slots]

    def _slots(self, profile: Profile, now: datetime, only_interested: bool) -> Iterator[_Slot]:
        today = self._days_of(profile).date_of(now)
        first = today - timedelta(days=KEPT_DAYS - 1)
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
        first, last = _pick(_FIRST, chance[0]), _pick(_LAST, chance[1])
        company = _pick(_COMPANIES, chance[2])
        reply_id = profile.workspace_id * 10**8 + (day_number - 700_000) * 1_000 + slot.index
        fraction = self._numbers.reply_fraction(profile, slot.day, slot.index)
        return Reply(
            id=reply_id,
            uuid=UUID(int=int(chance[3] * 2**32) << 96 | reply_id, version=4),
            lead_id=reply_id * 2 + 1,
            interested=slot.interested,
            received_at=self._days_of(profile).moment(slot.day, fraction),
            from_name=f"{first} {last}",
            from_email_address=f"{first}.{last}@{company}.example".lower(),
            text=_pick(_INTERESTED if slot.interested else _OTHER, chance[4]),
        )


def _pick(choices: Sequence[str], chance: float) -> str:
    return choices[int(chance * len(choices))]
