"""Bodies of the vendor's webhooks, as far as public material shows them.

The envelope holds no event id, no time and no signature: a receiver can identify an event only by
the ids of the records in it.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

from bison_sandbox.world.agency import uniforms, words
from bison_sandbox.world.clock import timestamp
from bison_sandbox.world.replies import Mark, pick, reply_row
from bison_sandbox.world.workspaces import Campaign

_TITLES = words("Founder Owner CFO COO Partner")
_SENDERS = 4
_NULL_ADDRESS, _NO_ADDRESS, _NO_UUID, _NO_VARIABLES = 0.05, 0.10, 0.12, 0.3
"""Cumulative chances; observed live, without figures."""


def interested_event(
    seed: int,
    mark: Mark,
    workspace_name: str,
    campaigns: Sequence[Campaign],
    zone: ZoneInfo,
    instance_url: str | None,
) -> dict[str, Any]:
    """The body of the event that a lead turned interested.

    `zone` is the one of the workspace's days; without an `instance_url` that member is missing.
    Some leads have a null address or none, and some replies have no uuid. No time in the body is
    that of the marking: all are of the mail and the reply, hours before.
    """
    reply = mark.reply
    chance = uniforms(seed, mark.workspace_id, "event", reply.id)
    campaign = campaigns[int(chance[0] * len(campaigns))]
    event: dict[str, Any] = {"type": "LEAD_INTERESTED", "name": "Lead Interested"}
    if instance_url is not None:
        event["instance_url"] = instance_url
    event |= {"workspace_id": mark.workspace_id, "workspace_name": workspace_name}
    return {
        "event": event,
        "data": {
            "reply": _reply(mark, chance),
            "campaign_event": {
                "id": reply.id * 3 + 1,
                "type": "replied",
                "created_at": timestamp(reply.received_at),
                "created_at_local": reply.received_at.astimezone(zone).isoformat(
                    timespec="seconds"
                ),
                "local_timezone": zone.key,
            },
            "lead": _lead(mark, chance),
            "campaign": {"id": campaign.id, "name": campaign.name},
            "scheduled_email": _scheduled_email(mark, chance),
            "sender_email": _sender_email(mark, chance),
        },
    }


def _reply(mark: Mark, chance: Sequence[float]) -> dict[str, object]:
    row = reply_row(mark.reply)
    if chance[1] < _NO_UUID:
        del row["uuid"]
    return row


def _lead(mark: Mark, chance: Sequence[float]) -> dict[str, object]:
    reply = mark.reply
    lead: dict[str, object] = {
        "id": reply.lead_id,
        "email": reply.from_email_address,
        "first_name": reply.first_name,
        "last_name": reply.last_name,
        "status": "replied",
        "title": pick(_TITLES, chance[3]),
        "company": reply.company.replace("-", " ").title(),
        "custom_variables": None
        if chance[4] < _NO_VARIABLES
        else [{"name": "city", "value": "Port Ellery"}],
    }
    if chance[2] < _NULL_ADDRESS:
        lead["email"] = None
    elif chance[2] < _NO_ADDRESS:
        del lead["email"]
    return lead


def _scheduled_email(mark: Mark, chance: Sequence[float]) -> dict[str, object]:
    sent_at = mark.reply.received_at - timedelta(hours=2 + 70 * chance[5])
    return {
        "id": mark.reply.id * 4 + 2,
        "lead_id": mark.reply.lead_id,
        "sequence_step_order": 1 + int(chance[6] * 3),
        "email_subject": "A question",
        "status": "sent",
        "sent_at": timestamp(sent_at),
    }


def _sender_email(mark: Mark, chance: Sequence[float]) -> dict[str, object]:
    place = int(chance[7] * _SENDERS)
    return {
        "id": mark.workspace_id * _SENDERS + place,
        "name": "Avery Quill",
        "email": f"avery{place + 1}@outreach-{mark.workspace_id}.example",
        "status": "Connected",
    }
