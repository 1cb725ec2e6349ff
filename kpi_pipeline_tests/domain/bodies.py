"""Minimal bodies of events, and the events parsed from them."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from kpi_pipeline.domain.events.event import Event, EventSource
from kpi_pipeline.domain.events.parse import parse_event

CHICAGO = ZoneInfo("America/Chicago")
ARRIVED = datetime(2026, 3, 18, 20, 0, tzinfo=UTC)


def content(
    event_type: str = "LEAD_INTERESTED",
    data: object = None,
    workspace_id: object = 101,
    **envelope: object,
) -> dict[str, Any]:
    """A body of Email Bison: by default, lead 7 of campaign 3 became interested."""
    if data is None:
        data = {"lead": {"id": 7}, "campaign": {"id": 3}}
    return {"event": {"type": event_type, "workspace_id": workspace_id, **envelope}, "data": data}


def parsed(
    sent: bytes | Mapping[str, Any],
    arrived_at: datetime = ARRIVED,
    *,
    instance: str = "main",
    tz: ZoneInfo = CHICAGO,
) -> Event:
    """The event, as if it arrived by a webhook."""
    raw = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    return parse_event(
        raw, instance=instance, source=EventSource.WEBHOOK, arrived_at=arrived_at, tz=tz
    )


def lead(
    number: int,
    workspace_id: int = 101,
    arrived_at: datetime = ARRIVED,
    *,
    campaign: int = 3,
    **envelope: object,
) -> Event:
    """Lead `number` of a workspace became interested; the body has no time."""
    data = {"lead": {"id": number}, "campaign": {"id": campaign}}
    return parsed(content("LEAD_INTERESTED", data, workspace_id, **envelope), arrived_at)


def email_sent(number: int, sent_at: datetime, arrived_at: datetime = ARRIVED) -> Event:
    """Email `number` of workspace 101 was sent at `sent_at`."""
    data = {"scheduled_email": {"id": number, "sent_at": sent_at.isoformat()}}
    return parsed(content("EMAIL_SENT", data), arrived_at)
