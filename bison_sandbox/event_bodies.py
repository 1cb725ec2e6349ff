"""Bodies of the vendor's webhooks, as far as public material shows them, and rows of its feed.

The envelope holds no event id, no time and no signature: a receiver can identify an event only by
the ids of the records in it. The row of the feed around it has an identity and a recorded time.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from bison_sandbox.variants import Variants
from bison_sandbox.webhooks import EVENT_NAMES
from bison_sandbox.world.agency import uniforms, words
from bison_sandbox.world.clock import timestamp
from bison_sandbox.world.events import Event
from bison_sandbox.world.replies import Person, invented_reply, person, pick, reply_row
from bison_sandbox.world.workspaces import Campaign

_TITLES = words("Founder Owner CFO COO Partner")
SENDERS = 4
"""How many mailboxes a workspace sends from."""

_NULL_ADDRESS, _NO_ADDRESS, _NO_UUID, _NO_VARIABLES = 0.05, 0.10, 0.12, 0.3
"""Cumulative chances; observed live, without figures."""

_NAME_OF_CAMPAIGN_EVENT = {
    "email_sent": "sent",
    "lead_replied": "replied",
    "lead_interested": "interested",
    "email_bounced": "bounce",
    "lead_unsubscribed": "unsubscribed",
}
_EASTERN = ZoneInfo("America/New_York")


def event_body(
    seed: int,
    event: Event,
    workspace_name: str,
    campaigns: Sequence[Campaign],
    zone: ZoneInfo,
    variants: Variants,
    instance_url: str | None,
) -> dict[str, Any]:
    """The body of an event, its type in upper case.

    `zone` is the one of the workspace's days; without an `instance_url` that member is missing.
    Some leads have a null address or none, and some replies have no uuid.
    """
    # By the person: mails to the same lead are of one campaign, and all events show it alike.
    chance = uniforms(seed, event.workspace_id, "event", event.person.id)
    campaign = campaigns[int(chance[0] * len(campaigns))]
    head: dict[str, Any] = {"type": event.type.upper(), "name": EVENT_NAMES[event.type]}
    if instance_url is not None and variants.event_instance_url:
        head["instance_url"] = instance_url
    head |= {"workspace_id": event.workspace_id, "workspace_name": workspace_name}
    data: dict[str, Any] = {}
    if event.reply is not None:
        data["reply"] = reply_row(event.reply, subject="email_subject")
        if chance[1] < _NO_UUID:
            del data["reply"]["uuid"]
    data["campaign_event"] = _campaign_event(event, zone, variants)
    data["lead"] = _lead(event, chance)
    data["campaign"] = {"id": campaign.id, "name": campaign.name}
    data["scheduled_email"] = _scheduled_email(event, chance, zone)
    data["sender_email"] = _sender_email(event, chance)
    return {"event": head, "data": data}


def feed_row(event: Event, payload: dict[str, Any]) -> dict[str, Any]:
    """The row of `GET /api/events` around the payload of an event."""
    recorded_at = timestamp(event.recorded_at)
    return {
        "id": event.id,
        "uuid": str(event.uuid),
        "payload": payload,
        "webhook_deliveries": [],
        "created_at": recorded_at,
        "updated_at": recorded_at,
    }


_SAMPLE_AT = datetime(2025, 4, 14, 16, 59, 21, tzinfo=UTC)
_SAMPLE_NUMBER = 100


def sample_body(event_type: str, variants: Variants, instance_url: str | None) -> dict[str, Any]:
    """The vendor's sample of a type: of workspace 1 and of an old time, wherever it is sent from.

    A type that is not counted has a head alone, since no document shows more.
    """
    if event_type not in _NAME_OF_CAMPAIGN_EVENT:
        head: dict[str, Any] = {"type": event_type.upper(), "name": EVENT_NAMES[event_type]}
        if instance_url is not None and variants.event_instance_url:
            head["instance_url"] = instance_url
        return {"event": head | {"workspace_id": 1, "workspace_name": "Sample"}, "data": {}}
    reply = None
    if event_type not in ("email_sent", "lead_unsubscribed"):
        reply = invented_reply(
            1,
            1,
            _SAMPLE_NUMBER,
            _SAMPLE_AT,
            interested=event_type == "lead_interested",
            bounced=event_type == "email_bounced",
        )
    event = Event(
        workspace_id=1,
        type=event_type,
        number=_SAMPLE_NUMBER,
        recorded_at=_SAMPLE_AT,
        happened_at=_SAMPLE_AT,
        sent_at=_SAMPLE_AT - timedelta(hours=5),
        person=person(1, 1, _SAMPLE_NUMBER),
        reply=reply,
    )
    return event_body(
        1, event, "Sample", [Campaign(1, "Sample campaign")], _EASTERN, variants, instance_url
    )


def _campaign_event(event: Event, zone: ZoneInfo, variants: Variants) -> dict[str, object]:
    name, at, number = _NAME_OF_CAMPAIGN_EVENT[event.type], event.happened_at, event.number * 3 + 1
    if event.type == "lead_interested":
        if variants.lead_campaign_event == "replied" and event.reply is not None:
            name, at = "replied", event.reply.received_at
        else:
            number += 1
    return {
        "id": number,
        "type": name,
        "created_at": timestamp(at),
        "created_at_local": at.astimezone(zone).isoformat(timespec="seconds"),
        "local_timezone": zone.key,
    }


def _lead(event: Event, chance: Sequence[float]) -> dict[str, object]:
    who: Person = event.person
    status = {"lead_interested": "interested", "lead_replied": "replied"}
    lead: dict[str, object] = {
        "id": who.id,
        "email": who.address,
        "first_name": who.first_name,
        "last_name": who.last_name,
        "status": {**status, "email_bounced": "bounced", "lead_unsubscribed": "unsubscribed"}.get(
            event.type, "in_sequence"
        ),
        "title": pick(_TITLES, chance[3]),
        "company": who.company.replace("-", " ").title(),
        "custom_variables": None
        if chance[4] < _NO_VARIABLES
        else [{"name": "city", "value": "Port Ellery"}],
    }
    if chance[2] < _NULL_ADDRESS:
        lead["email"] = None
    elif chance[2] < _NO_ADDRESS:
        del lead["email"]
    return lead


def _scheduled_email(event: Event, chance: Sequence[float], zone: ZoneInfo) -> dict[str, object]:
    sent_at, number = event.sent_at, event.person.id * 2
    return {
        "id": number,
        "lead_id": event.person.id,
        "sequence_step_id": event.workspace_id * 3 + int(chance[6] * 3),
        "sequence_step_order": 1 + int(chance[6] * 3),
        "sequence_step_variant": 1,
        "email_subject": "A question",
        "email_body": "<p>May I ask you a question?</p>",
        "status": "sent",
        "scheduled_date_est": sent_at.astimezone(_EASTERN).isoformat(timespec="seconds"),
        "scheduled_date_local": sent_at.astimezone(zone).isoformat(timespec="seconds"),
        "local_timezone": zone.key,
        "sent_at": timestamp(sent_at),
        "opens": 0,
        "replies": int(event.reply is not None and not event.reply.bounced),
        "unique_opens": 0,
        "unique_replies": int(event.reply is not None and not event.reply.bounced),
        "interested": True if event.type == "lead_interested" else None,
        "raw_message_id": f"<{UUID(int=number, version=4)}@outreach.example>",
    }


def _sender_email(event: Event, chance: Sequence[float]) -> dict[str, object]:
    place = int(chance[7] * SENDERS)
    return {
        "id": event.workspace_id * SENDERS + place,
        "name": "Avery Quill",
        "email": f"avery{place + 1}@outreach-{event.workspace_id}.example",
        "status": "Connected",
    }
