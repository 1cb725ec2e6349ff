from typing import Any

import pytest

from kpi_pipeline_tests.bison_sandbox.running import Bison

HOOK = {"name": "kpi", "url": "https://kpi.example/in", "events": ["lead_interested"]}


def create(bison: Bison, key: str | None = None, **changed: Any) -> dict[str, Any]:
    made = bison.call("POST", "/api/webhook-url", key=key, json=HOOK | changed)
    assert made.status_code == 201
    row: dict[str, Any] = made.json()["data"]
    return row


def test_a_webhook_is_created_read_replaced_and_deleted(bison: Bison) -> None:
    row = create(bison)
    assert row.items() >= HOOK.items()
    assert {"created_at", "updated_at"} <= set(row)
    path = f"/api/webhook-url/{row['id']}"
    assert bison.data(path) == row
    assert bison.data("/api/webhook-url") == [row]

    other = {"name": "b", "url": "https://kpi.example/b", "events": ["email_sent", "lead_replied"]}
    replaced = bison.call("PUT", path, json=other)
    assert replaced.status_code == 200
    assert bison.data(path).items() >= other.items()

    assert bison.call("DELETE", path).status_code == 200
    assert bison.get(path).status_code == 404
    assert bison.data("/api/webhook-url") == []


def test_webhooks_belong_to_one_workspace(bison: Bison) -> None:
    mine, other = (row["api_key"] for row in bison.with_key()[:2])
    row = create(bison, mine)
    path = f"/api/webhook-url/{row['id']}"
    assert bison.data("/api/webhook-url", key=other) == []
    assert bison.get(path, key=other).status_code == 403
    assert bison.call("DELETE", path, key=other).status_code == 403
    assert bison.data("/api/webhook-url", key=mine) == [row]


@pytest.mark.parametrize("field", ["name", "url", "events"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_each_of_the_three_fields_is_required(bison: Bison, field: str, method: str) -> None:
    row = create(bison)
    path = "/api/webhook-url" if method == "POST" else f"/api/webhook-url/{row['id']}"
    body = {name: value for name, value in HOOK.items() if name != field}
    refused = bison.call(method, path, json=body)
    assert refused.status_code == 422
    assert list(refused.json()["data"]["errors"]) == [field]
    assert bison.data("/api/webhook-url") == [row]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", 5),
        ("url", "kpi.example"),
        ("events", "lead_interested"),
        ("events", ["LEAD_INTERESTED"]),
        ("events", [["lead_interested"]]),
    ],
)
def test_a_field_of_the_wrong_kind_is_refused(bison: Bison, field: str, value: object) -> None:
    refused = bison.call("POST", "/api/webhook-url", json=HOOK | {field: value})
    assert refused.status_code == 422
    assert list(refused.json()["data"]["errors"]) == [field]


def test_every_listed_type_of_event_can_be_subscribed_to(bison: Bison) -> None:
    types = bison.data("/api/webhook-events/event-types")
    ids = [each["id"] for each in types]
    assert {"lead_interested", "lead_replied", "email_sent", "email_bounced"} <= set(ids)
    assert all(each["name"] for each in types)
    assert create(bison, events=ids)["events"] == ids
