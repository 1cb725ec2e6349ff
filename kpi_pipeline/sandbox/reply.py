"""One invented reply of a lead: who wrote, when, and what, and how the vendor shows it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from kpi_pipeline.sandbox.clock import timestamp
from kpi_pipeline.sandbox.names import words

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
        """Who wrote."""
        return f"{self.first_name} {self.last_name}"

    @property
    def from_email_address(self) -> str:
        """From which address."""
        return f"{self.first_name}.{self.last_name}@{self.company}.example".lower()


def invented_reply(
    reply_id: int, received_at: datetime, *, interested: bool, chance: Sequence[float]
) -> Reply:
    """The reply that at least five numbers in [0, 1) make of an id; the lead's id fits it."""
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


def reply_row(reply: Reply, told: Callable[[str], str] = str) -> dict[str, object]:
    """A reply as the vendor shows it; `told` is what becomes of its texts on the way."""
    body = told(reply.text)
    return {
        "id": reply.id,
        "uuid": str(reply.uuid),
        "email_subject": told("Re: a question"),
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
