"""The types of event, the vendor's samples, repeated deliveries, and what a webhook posts."""

import json
from typing import Any

import pytest

from kpi_pipeline_tests.bison_sandbox.receiver import Receiver
from kpi_pipeline_tests.bison_sandbox.running import Bison

TYPES = "/api/webhook-events"
COUNTED = ["email_sent", "lead_replied", "lead_interested", "email_bounced", "lead_unsubscribed"]


def test_event_types_have_the_vendors_names(bison: Bison) -> None:
    names = {each["id"]: each["name"] for each in bison.data(f"{TYPES}/event-types")}
    assert names["lead_interested"] == "Contact Interested"
    assert names["lead_first_contacted"] == "Contact First Emailed"
    assert {*COUNTED, "tag_attached", "email_send_failed", "blacklisted_domain_added"} <= set(names)


@pytest.mark.parametrize("kind", [*COUNTED, "tag_attached"])
def test_a_test_event_posts_the_sample_of_workspace_1_wherever_it_is_sent_from(
    bison: Bison, receiver: Receiver, kind: str
) -> None:
    key = bison.with_key()[2]["api_key"]
    body = {"event_type": kind, "url": f"{receiver.url}/in"}
    sent = bison.call("POST", f"{TYPES}/test-event", key=key, json=body)
    assert (sent.status_code, sent.json()["data"]["success"]) == (200, True)
    [delivery] = bison.delivered()
    [posted] = receiver.received
    assert delivery["workspace_id"] == posted.body["event"]["workspace_id"] == 1
    assert posted.body == bison.data(f"{TYPES}/sample-payload", key=key, event_type=kind)
    if kind in COUNTED:
        campaign_event = posted.body["data"]["campaign_event"]
        assert campaign_event["created_at"] == "2025-04-14T16:59:21.000000Z"


def test_a_test_event_counts_nothing_and_is_not_in_the_feed(
    bison: Bison, receiver: Receiver
) -> None:
    key = bison.with_key()[0]["api_key"]
    before = bison.data("/api/events", key=key)
    body = {"event_type": "lead_interested", "url": f"{receiver.url}/in"}
    bison.call("POST", f"{TYPES}/test-event", key=key, json=body)
    bison.delivered()
    assert bison.data("/api/events", key=key) == before


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "event_type"),
        ({"event_type": "sparkle", "url": "http://kpi.example"}, "event_type"),
        ({"event_type": ["lead_replied"], "url": "http://kpi.example"}, "event_type"),
        ({"event_type": "lead_replied"}, "url"),
        ({"event_type": "lead_replied", "url": "kpi.example"}, "url"),
    ],
)
def test_a_wrong_test_event_is_refused_by_field(
    bison: Bison, body: dict[str, Any], field: str
) -> None:
    refused = bison.call("POST", f"{TYPES}/test-event", json=body)
    assert refused.status_code == 422
    assert list(refused.json()["data"]["errors"]) == [field]


def test_a_sample_names_its_type(bison: Bison) -> None:
    assert bison.get(f"{TYPES}/sample-payload").status_code == 422
    assert bison.get(f"{TYPES}/sample-payload", event_type="sparkle").status_code == 422


def test_a_delivery_is_sent_again_on_request(bison: Bison, receiver: Receiver) -> None:
    bison.variants(delivery_retry_seconds=0)
    mine, other = bison.with_key()[:2]
    receiver.answer = lambda path, before: 503 if before < 6 else 200
    bison.hook(mine, f"{receiver.url}/in")
    bison.mark(mine)
    [given_up] = bison.delivered()
    assert (given_up["tries"], given_up["last_status"]) == (6, 503)
    path = f"/api/webhook-attempts/{given_up['id']}/retry"
    assert bison.call("POST", path, key=other["api_key"]).status_code == 403
    assert bison.call("POST", path, key=mine["api_key"]).status_code == 200
    _, again = bison.delivered()
    assert (again["tries"], again["last_status"], again["id"]) == (1, 200, given_up["id"] + 1)
    assert len({each.text for each in receiver.received}) == 1
    missing = bison.call("POST", "/api/webhook-attempts/99/retry", key=mine["api_key"])
    assert missing.status_code == 404


@pytest.mark.parametrize("casing", ["upper", "lower"])
def test_a_webhook_may_post_the_row_of_the_feed(
    bison: Bison, receiver: Receiver, casing: str
) -> None:
    bison.variants(webhook_body="row", event_casing=casing)
    row = bison.with_key()[0]
    bison.hook(row, f"{receiver.url}/in")
    bison.mark(row)
    bison.delivered()
    listed = bison.data("/api/events", key=row["api_key"], type="LEAD_INTERESTED")
    assert receiver.received[0].body == listed[0]


def test_an_address_gets_the_types_that_it_subscribes_to(bison: Bison, receiver: Receiver) -> None:
    row = bison.with_key()[0]
    for kind in COUNTED:
        bison.hook(row, f"{receiver.url}/{kind}", kind)
    bison.control("POST", "parent-hook", {"url": f"{receiver.url}/all", "events": COUNTED})
    for kind in COUNTED:
        body = {"workspace_id": int(row["bison_workspace_id"]), "type": kind}
        bison.control("POST", "events", body)
    bison.delivered()
    # The reply of the marked lead is an event, too.
    expected = sorted([*COUNTED, "lead_replied"])
    assert sorted(each.body["event"]["type"].lower() for each in receiver.at("/all")) == expected
    for kind in COUNTED:
        got = [each.body["event"]["type"] for each in receiver.at(f"/{kind}")]
        assert got == [kind.upper()] * expected.count(kind)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"type": "sparkle"}, "type"),
        ({}, "type"),
        ({"type": "email_sent", "events": 0}, "events"),
        ({"type": "email_sent", "deliver": 1}, "deliver"),
    ],
)
def test_a_wrong_event_is_refused_by_field(bison: Bison, body: dict[str, Any], field: str) -> None:
    workspace_id = int(bison.with_key()[0]["bison_workspace_id"])
    refused = bison.http.post("/sandbox/events", json={"workspace_id": workspace_id} | body)
    assert refused.status_code == 422
    assert list(refused.json()["data"]["errors"]) == [field]


def test_lost_deliveries_are_given_up_without_a_try_and_stay_in_the_feed(
    bison: Bison, receiver: Receiver
) -> None:
    bison.variants(delivery_losses=0.5)
    row = bison.with_key()[0]
    bison.parent_hook(f"{receiver.url}/in")
    events = bison.mark(row, leads=60)
    rows = bison.delivered()
    lost = [each for each in rows if each["tries"] == 0]
    assert 15 <= len(lost) == bison.deliveries()["given_up"] <= 45
    assert len(receiver.received) == 60 - len(lost)
    listed, cursor = [], None
    for _ in range(4):
        params = {"type": "lead_interested"} | ({"cursor": cursor} if cursor else {})
        page = bison.get("/api/events", key=row["api_key"], **params).json()
        listed += [each["payload"] for each in page["data"]]
        cursor = page["meta"]["next_cursor"]
    assert sorted(map(json.dumps, listed)) == sorted(map(json.dumps, events))


def test_an_answer_that_comes_too_late_is_none(bison: Bison, receiver: Receiver) -> None:
    bison.variants(delivery_timeout_seconds=0.05, delivery_retry_seconds=0)
    bison.parent_hook(f"{receiver.url}/in")
    receiver.held.add("/in")
    bison.mark(bison.with_key()[0])
    [delivery] = bison.delivered()
    assert (delivery["tries"], delivery["last_status"]) == (6, None)
