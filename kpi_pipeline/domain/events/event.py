"""An event as it arrived and as it was parsed: the content of a row of the inbox."""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum


class EventStatus(StrEnum):
    """How far an event is on its way into the numbers."""

    RECEIVED = "received"
    """Stored and parsed; the rows of its client do not include it yet."""
    APPLIED = "applied"
    """The rows of its client include it."""
    IGNORED = "ignored"
    """Of a type that is not counted."""
    TEST = "test"
    """Sent to try the webhook, by Email Bison's button or by `kpi webhooks test`."""
    UNMATCHED = "unmatched"
    """Of a workspace that belongs to no active client; counted once it does."""
    INVALID = "invalid"
    """Its body can't be understood."""
    SET_ASIDE = "set_aside"
    """Computing the rows with it failed repeatedly; it is not counted any more."""


class EventSource(StrEnum):
    """How an event arrived."""

    WEBHOOK = "webhook"
    FILE = "file"
    FEED = "feed"
    """Email Bison's own list of the last ten days' events, which is read regularly."""
    FUNCTION = "function"
    """The database's own `increment_metric`."""


@dataclass(frozen=True)
class Event:
    """One event of an instance, parsed as far as its body allows.

    `status` is RECEIVED, IGNORED, TEST or INVALID, the last three with a `reason`; the client is
    not known yet. `metric` names the daily count that the event raises by one. `happened_at` is the
    time in the body, or None; `business_date` is the day on which the event counts. A row of the
    feed has a `feed_uuid`, and `recorded_at`, the time at which Email Bison recorded the event.
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
    feed_uuid: str | None = None
    recorded_at: datetime | None = None
