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
        *("html_body", "raw_body", "headers", "date_received", "type", "tracked_reply", "folder"),
        *("raw_message_id", "parent_id", "from_name", "from_email_address", "to", "cc", "bcc"),
        *("primary_to_email_address", "attachments", "lead_id"),
    },
    "campaign_event": {"id", "type", "created_at", "created_at_local", "local_timezone"},
    "lead": {
        *("id", "email", "first_name", "last_name", "status", "title", "company"),
        "custom_variables",
    },
    "campaign": {"id", "name"},
    "scheduled_email": {
        *("id", "lead_id", "sequence_step_id", "sequence_step_order", "sequence_step_variant"),
        *("email_subject", "email_body", "status", "scheduled_date_est", "scheduled_date_local"),
        *("local_timezone", "sent_at", "opens", "replies", "unique_opens", "unique_replies"),
        *("interested", "raw_message_id"),
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
        "name": "Contact Interested",
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


@pytest.mark.parametrize("place", [0, 5, 7])
def test_campaigns_are_those_that_the_api_tells_of(bison: Bison, place: int) -> None:
    row = bison.with_key()[place]
    listed = bison.data("/api/campaigns", key=row["api_key"])
    known = {each["id"]: each["name"] for each in listed}
    events = bison.mark(row, leads=100)
    shown = {e["data"]["campaign"]["id"]: e["data"]["campaign"]["name"] for e in events}
    assert shown == known


@pytest.mark.parametrize("of", ["interested", "replied"])
def test_the_campaign_event_of_a_lead_is_the_marking_or_the_reply(bison: Bison, of: str) -> None:
    bison.variants(lead_campaign_event=of)
    marked_at = datetime.fromisoformat(AFTERNOON)
    for event in bison.mark(bison.with_key()[0], leads=100):
        data = event["data"]
        received = datetime.fromisoformat(data["reply"]["date_received"])
        shown = data["campaign_event"]
        sent = datetime.fromisoformat(data["scheduled_email"]["sent_at"])
        assert sent < received <= marked_at - timedelta(hours=1)
        assert shown["type"] == of
        created_at = datetime.fromisoformat(shown["created_at"])
        assert created_at == (marked_at if of == "interested" else received)
        assert datetime.fromisoformat(shown["created_at_local"]) == created_at
        assert shown["local_timezone"] == "America/Chicago"
        assert re.fullmatch(TIMESTAMP, data["reply"]["date_received"])
        assert re.fullmatch(TIMESTAMP, data["scheduled_email"]["sent_at"])


def test_names_and_addresses_are_invented(bison: Bison) -> None:
    events = bison.mark(bison.with_key()[0], leads=100)
    addresses = [text for event in events for text in texts(event["data"]) if "@" in text]
    assert len(set(addresses)) > 50
    assert all(address.rstrip(">").endswith(".example") for address in addresses)


EVENTS = {
    "email_sent": ("Email Sent", "sent"),
    "lead_replied": ("Contact Replied", "replied"),
    "lead_interested": ("Contact Interested", "interested"),
    "email_bounced": ("Email Bounced", "bounce"),
    "lead_unsubscribed": ("Contact Unsubscribed", "unsubscribed"),
}


@pytest.mark.parametrize("kind", EVENTS)
def test_each_counted_type_has_its_name_its_members_and_the_time_at_which_it_happened(
    bison: Bison, kind: str
) -> None:
    row = bison.with_key()[0]
    body = {"workspace_id": int(row["bison_workspace_id"]), "type": kind, "events": 20}
    name, of = EVENTS[kind]
    with_reply = kind not in ("email_sent", "lead_unsubscribed")
    for event in bison.control("POST", "events", body)["events"]:
        assert (event["event"]["type"], event["event"]["name"]) == (kind.upper(), name)
        data = event["data"]
        assert list(data) == [each for each in MEMBERS if with_reply or each != "reply"]
        for member in data:
            assert MEMBERS[member] - MAY_BE_MISSING <= data[member].keys() <= MEMBERS[member]
        happened = datetime.fromisoformat(data["campaign_event"]["created_at"])
        assert (data["campaign_event"]["type"], happened) == (of, datetime.fromisoformat(AFTERNOON))
        sent = datetime.fromisoformat(data["scheduled_email"]["sent_at"])
        assert sent == happened if kind == "email_sent" else sent < happened
        assert data["lead"]["id"] == data["scheduled_email"]["lead_id"]
        if kind == "email_bounced":
            assert (data["reply"]["type"], data["reply"]["folder"]) == ("Bounced", "Bounced")
            assert data["reply"]["from_email_address"] == "mailer-daemon@mail.example"


def test_the_same_marks_at_the_same_moment_tell_the_same_and_another_seed_another(
    stage: Stage,
) -> None:
    shown = []
    for seed in (7, 7, 8):
        with bison_on(stage, options(seed=seed, first_workspace_id=5)) as bison:
            shown.append([e["data"]["lead"] for e in bison.mark(bison.clients()[0], leads=5)])
    assert shown[0] == shown[1] != shown[2]
