"""An event as it arrived and as it is understood: what a row of the inbox holds."""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum


class EventStatus(StrEnum):
    """Where an event stands on its way into the numbers."""

    RECEIVED = "received"
    """Stored and understood; its client's rows are not worked out anew yet."""
    APPLIED = "applied"
    """The rows of its client were worked out with it."""
    IGNORED = "ignored"
    """Of a type that no number is made of."""
    UNMATCHED = "unmatched"
    """Of a workspace that is no active client's; taken up when it becomes one's."""
    INVALID = "invalid"
    """It can't be understood."""
    SET_ASIDE = "set_aside"
    """Working the rows out with it failed again and again; it counts no more."""


class EventSource(StrEnum):
    """How an event came in."""

    WEBHOOK = "webhook"
    FILE = "file"
    FUNCTION = "function"
    """The database's own `increment_metric`."""


@dataclass(frozen=True)
class Event:
    """One event of an instance, understood as far as its body allows.

    `status` is RECEIVED, IGNORED or INVALID, with the `reason` of the last two; whom it belongs to
    is not known yet. `metric` names the daily count that it raises by one. `happened_at` is what
    the body says, or None; `business_date` is the day on which it counts, fixed here once.
    """

    instance: str
    source: EventSource
    arrived_at: datetime
    body: bytes
    idempotency_key: str
    status: EventStatus
    business_date: date
    reason: str | None = None
    event_type: str | None = None
    bison_workspace_id: int | None = None
    metric: str | None = None
    happened_at: datetime | None = None
    instance_url: str | None = None
