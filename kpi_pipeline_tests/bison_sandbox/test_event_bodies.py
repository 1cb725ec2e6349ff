"""The bodies of events: what public material shows of the vendor's, and what varies in them."""

import re
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest

from kpi_pipeline_tests.bison_sandbox.running import AFTERNOON, Bison, Stage, bison_on, options

MEMBERS = {
    "reply": {
        *("id", "uuid", "email_subject", "interested", "automated_reply", "text_body"),
        *("html_body", "date_received", "type", "folder", "from_name", "from_email_address"),
        *("to", "cc", "lead_id"),
    },
    "campaign_event": {"id", "type", "created_at", "created_at_local", "local_timezone"},
    "lead": {
        *("id", "email", "first_name", "last_name", "status", "title", "company"),
        "custom_variables",
    },
    "campaign": {"id", "name"},
    "scheduled_email": {
        *("id", "lead_id", "sequence_step_order", "email_subject", "status", "sent_at"),
    },
    "sender_email": {"id", "name", "email", "status"},
}
TIMESTAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000000Z"
MAY_BE_MISSING = {"uuid", "email"}


def texts(content: Any) -> list[str]:
    if isinstance(content, dict):
        return [text for each in content.values() for text in texts(each)]
    if isinstance(content, list):
        return [text for each in content for text in texts(each)]
    return [content] if isinstance(content, str) else []


def test_an_event_has_the_vendors_envelope_and_neither_id_nor_time(bison: Bison) -> None:
    row = next(row for row in bison.clients() if row["name"].endswith(" "))
    [event] = bison.mark(row)
    assert event.keys() == {"event", "data"}
    assert event["event"] == {
        "type": "LEAD_INTERESTED",
        "name": "Lead Interested",
        "instance_url": str(bison.http.base_url).rstrip("/"),
        "workspace_id": int(row["bison_workspace_id"]),
        "workspace_name": row["name"],
    }


def test_an_event_may_come_without_the_instances_address(bison: Bison) -> None:
    bison.variants(event_instance_url=False)
    [event] = bison.mark(bison.with_key()[0])
    assert event["event"].keys() == {"type", "name", "workspace_id", "workspace_name"}


def test_a_renamed_workspace_has_its_current_name(bison: Bison) -> None:
    row = bison.with_key()[0]
    path = f"/sandbox/workspaces/{row['bison_workspace_id']}/rename"
    bison.http.post(path, json={"name": "Ninth Wave"})
    [event] = bison.mark(row)
    assert event["event"]["workspace_name"] == "Ninth Wave"


def test_an_event_tells_of_six_things_by_the_vendors_members(bison: Bison) -> None:
    seen: Counter[str] = Counter()
    for event in bison.mark(bison.with_key()[0], leads=400):
        data = event["data"]
        assert list(data) == list(MEMBERS)
        for name, members in MEMBERS.items():
            assert members - MAY_BE_MISSING <= data[name].keys() <= members, name
        lead, reply = data["lead"], data["reply"]
        assert reply["interested"] is True
        assert lead["id"] == reply["lead_id"] == data["scheduled_email"]["lead_id"]
        assert f"{lead['first_name']} {lead['last_name']}" == reply["from_name"]
        assert lead.get("email") in (None, reply["from_email_address"])
        variables = lead["custom_variables"]
        assert variables is None or variables[0].keys() == {"name", "value"}
        seen["null for an address"] += "email" in lead and lead["email"] is None
        seen["no address"] += "email" not in lead
        seen["no uuid"] += "uuid" not in reply
        seen["no variables"] += variables is None
    assert len(seen) == 4
    assert 10 <= min(seen.values()) <= max(seen.values()) < 200


def test_no_two_marks_share_an_id(stage: Stage) -> None:
    with bison_on(stage, options(clients=4)) as bison:
        rows = bison.clients()
        events = [event for _ in range(2) for row in rows for event in bison.mark(row, leads=300)]
        bison.freeze("2026-03-18T15:00:01-05:00")
        events += bison.mark(rows[0], leads=300)
    with bison_on(stage, options(clients=4)) as again:
        again.freeze("2026-03-18T15:00:02-05:00")
        events += again.mark(rows[0], leads=300)
    for name in ("lead", "reply", "campaign_event", "scheduled_email"):
        ids = [event["data"][name]["id"] for event in events]
        assert len(set(ids)) == len(ids) == 3_000
        # Nothing loses digits in JavaScript, or in a column of 64 bits.
        assert 0 < min(ids) <= max(ids) < 2**53


@pytest.mark.parametrize("place", [0, 5, 11])
def test_campaigns_are_those_that_the_api_tells_of(bison: Bison, place: int) -> None:
    row = bison.with_key()[place]
    plan = bison.data("/api/campaigns/sending-schedules", key=row["api_key"], day="today")
    known = {each["campaign"]["id"]: each["campaign"]["name"] for each in plan}
    events = bison.mark(row, leads=100)
    shown = {e["data"]["campaign"]["id"]: e["data"]["campaign"]["name"] for e in events}
    assert shown == known


def test_every_time_tells_of_mail_and_reply_and_none_of_the_marking(bison: Bison) -> None:
    marked_at = datetime.fromisoformat(AFTERNOON)
    for event in bison.mark(bison.with_key()[0], leads=100):
        data = event["data"]
        received = datetime.fromisoformat(data["reply"]["date_received"])
        replied = data["campaign_event"]
        sent = datetime.fromisoformat(data["scheduled_email"]["sent_at"])
        assert sent < received <= marked_at - timedelta(hours=1)
        assert replied["type"] == "replied"
        assert replied["created_at"] == data["reply"]["date_received"]
        assert datetime.fromisoformat(replied["created_at_local"]) == received
        assert replied["local_timezone"] == "America/Chicago"
        assert re.fullmatch(TIMESTAMP, data["reply"]["date_received"])
        assert re.fullmatch(TIMESTAMP, data["scheduled_email"]["sent_at"])


def test_names_and_addresses_are_invented(bison: Bison) -> None:
    events = bison.mark(bison.with_key()[0], leads=100)
    addresses = [text for event in events for text in texts(event["data"]) if "@" in text]
    assert len(set(addresses)) > 50
    assert all(address.endswith(".example") for address in addresses)


def test_the_same_marks_at_the_same_moment_tell_the_same_and_another_seed_another(
    stage: Stage,
) -> None:
    shown = []
    for seed in (7, 7, 8):
        with bison_on(stage, options(seed=seed, first_workspace_id=5)) as bison:
            shown.append([e["data"]["lead"] for e in bison.mark(bison.clients()[0], leads=5)])
    assert shown[0] == shown[1] != shown[2]
