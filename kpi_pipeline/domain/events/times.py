"""The times of a recorded event, one of which decides on which day Email Bison counts it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from kpi_pipeline.domain.events.kinds import COUNTED
from kpi_pipeline.domain.events.parse import load_json

LEADS, REPLIES = "interested", "replied"


class Moment(StrEnum):
    """The times of an event that may decide its day."""

    RECORDED = "recorded"
    """When Email Bison recorded it; of a lead: when it was marked."""
    HAPPENED = "happened"
    """When it happened, as its `campaign_event` says."""
    REPLY = "reply"
    """When the reply came."""
    MAIL = "mail"
    """When the mail went out that it is about."""


@dataclass(frozen=True)
class TimedEvent:
    """One event of the feed: the count that it raises, its known times, and the lead's ids.

    `local_zone` is the time zone that its body names as local.
    """

    count: str
    times: Mapping[Moment, datetime]
    lead: tuple[object, object] | None = None
    local_zone: str | None = None

    @property
    def recorded_at(self) -> datetime:
        """When Email Bison recorded it."""
        return self.times[Moment.RECORDED]


def timed_event(body: bytes, event_type: str, recorded_at: datetime) -> TimedEvent:
    """A row of the feed of a counted type, with each time that its body has.

    Raises:
        ValueError: if it is no row of the feed.
    """
    content = load_json(body)
    data = _at(content, "payload.data")
    kind = COUNTED[event_type]
    named = str(_at(data, "campaign_event.type")).strip().lower()
    happened = _instant(_at(data, "campaign_event.created_at"))
    times: dict[Moment, datetime | None] = {
        Moment.RECORDED: recorded_at,
        Moment.REPLY: _instant(_at(data, "reply.date_received")),
        Moment.MAIL: _instant(_at(data, "scheduled_email.sent_at")),
    }
    if named in {event_type, *kind.recorded_as}:
        times[Moment.HAPPENED] = happened
    if named in COUNTED["lead_replied"].recorded_as and times[Moment.REPLY] is None:
        times[Moment.REPLY] = happened
    lead, campaign = _at(data, "lead.id"), _at(data, "campaign.id")
    local = _at(data, "campaign_event.local_timezone")
    return TimedEvent(
        kind.metric,
        {moment: at for moment, at in times.items() if at is not None},
        None if lead is None else (str(lead), str(campaign)),
        local if isinstance(local, str) else None,
    )


def with_reply_times(events: Sequence[TimedEvent]) -> list[TimedEvent]:
    """The events; a lead whose body has no time of its reply has that of its latest reply."""
    replies: dict[tuple[object, object], list[datetime]] = {}
    for event in events:
        if event.count == REPLIES and event.lead and Moment.REPLY in event.times:
            replies.setdefault(event.lead, []).append(event.times[Moment.REPLY])
    found = []
    for event in events:
        if event.count == LEADS and event.lead and Moment.REPLY not in event.times:
            before = [it for it in replies.get(event.lead, ()) if it <= event.recorded_at]
            if before:
                event = replace(event, times={**event.times, Moment.REPLY: max(before)})
        found.append(event)
    return found


def _at(content: object, path: str) -> object:
    value: object = content
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _instant(value: object) -> datetime | None:
    try:
        at = datetime.fromisoformat(str(value).strip())
        return at.astimezone(UTC) if at.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
