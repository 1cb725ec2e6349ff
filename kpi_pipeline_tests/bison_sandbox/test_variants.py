import json

import httpx
import pytest

from bison_sandbox import SandboxOptions, Variants
from kpi_pipeline_tests.bison_sandbox.running import WORKSPACES, Bison, Stage, bison_on, options

DEFAULTS = {
    "counts": "documented",
    "empty_days": "zeros",
    "labels": "vendor_order",
    "day_zone": "",
    "leads_count_by": "marking",
    "revised_days": 7,
    "user_member": "workspace",
    "wrapped_401": True,
    "retry_after": True,
    "empty_plan": "400",
    "campaigns": "mixed",
    "paging": "page",
    "switch_seconds": 0,
    "restless_user": 0,
    "control_characters": False,
    "extra_fields": False,
    "event_feed": "filtered",
    "event_casing": "upper",
    "event_instance_url": True,
    "lead_campaign_event": "interested",
    "webhook_body": "payload",
    "delivery_seconds": 0,
    "delivery_repeats": 0,
    "delivery_losses": 0,
    "delivery_timeout_seconds": 15,
    "delivery_retry_seconds": 2787,
}
PERIOD = {"start_date": "2026-03-16", "end_date": "2026-03-17"}


def test_variants_are_shown_changed_and_reset(bison: Bison) -> None:
    assert bison.http.get("/sandbox/variants").json() == DEFAULTS
    changed = bison.http.patch("/sandbox/variants", json={"paging": "whole", "switch_seconds": 1.5})
    assert changed.json() == DEFAULTS | {"paging": "whole", "switch_seconds": 1.5}
    bison.variants(counts="text")
    assert bison.http.get("/sandbox/variants").json() == changed.json() | {"counts": "text"}
    assert bison.http.delete("/sandbox/variants").json() == DEFAULTS
    assert bison.http.get("/sandbox/variants").json() == DEFAULTS


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("counts", "many", "'documented', 'text' or 'integers'"),
        ("empty_plan", 400, "'400', 'list', '404', '422' or 'success_false'"),
        ("day_zone", "Mars/Olympus", "Area/City"),
        ("wrapped_401", "no", "boolean"),
        ("switch_seconds", -1, "greater than or equal to 0"),
        ("restless_user", 1.1, "less than or equal to 1"),
        ("event_casing", "LOWER", "'upper', 'lower' or 'mixed'"),
        ("event_instance_url", "true", "boolean"),
        ("delivery_seconds", -0.1, "greater than or equal to 0"),
        ("delivery_repeats", 2, "less than or equal to 1"),
        ("delivery_timeout_seconds", 0, "greater than 0"),
        ("revised_days", 8, "less than or equal to 7"),
        ("leads_count_by", "hour", "'marking', 'reply' or 'mail'"),
        ("delivery_retry_seconds", -1, "greater than or equal to 0"),
        ("sparkle", True, "Known are campaigns, control_characters,"),
    ],
)
def test_a_wrong_variant_is_refused_with_what_is_allowed_and_nothing_is_changed(
    bison: Bison, name: str, value: object, shown: str
) -> None:
    refused = bison.http.patch("/sandbox/variants", json={"paging": "whole", name: value})
    assert refused.status_code == 422
    data = refused.json()["data"]
    assert data["success"] is False
    assert list(data["errors"]) == [name]
    assert shown in data["message"]
    assert bison.http.get("/sandbox/variants").json() == DEFAULTS


@pytest.mark.parametrize("body", [b"", b"[]", b"no json"])
def test_variants_come_as_a_json_object(bison: Bison, body: bytes) -> None:
    assert bison.http.patch("/sandbox/variants", content=body).status_code == 422


def test_a_sandbox_starts_with_the_variants_of_its_options(stage: Stage) -> None:
    assert SandboxOptions().variants == Variants()
    with bison_on(stage, options(variants=Variants(paging="whole"))) as bison:
        assert bison.http.get("/sandbox/variants").json() == DEFAULTS | {"paging": "whole"}


def test_a_401_comes_with_the_wrapping_of_other_errors_or_without(bison: Bison) -> None:
    refused = bison.get("/api/users", key="1|wrong")
    assert refused.json() == {"data": {"success": False, "message": "Unauthenticated."}}
    bison.variants(wrapped_401=False)
    refused = bison.get("/api/users", key="1|wrong")
    assert refused.status_code == 401
    assert refused.json() == {"message": "Unauthenticated."}


@pytest.mark.parametrize("shown", [True, False])
def test_a_429_of_the_bottleneck_may_come_without_retry_after(stage: Stage, shown: bool) -> None:
    with bison_on(stage, options(calls_per_second=0.01)) as bison:
        bison.variants(retry_after=shown)
        answers = [bison.get("/api/users") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert ("Retry-After" in answers[1].headers) == shown


def test_nothing_planned_is_an_empty_list_or_one_of_four_failures(bison: Bison) -> None:
    bison.freeze("2026-03-21T12:00:00-05:00")
    path = "/api/campaigns/sending-schedules"
    assert bison.get(path, day="today").status_code == 400
    for variant, status in (("404", 404), ("422", 422), ("success_false", 200)):
        bison.variants(empty_plan=variant)
        nothing = bison.get(path, day="today")
        assert nothing.status_code == status
        data = nothing.json()["data"]
        assert (data["success"], data["message"]) == (False, "No emails scheduled for this period")
    bison.variants(empty_plan="list")
    nothing = bison.get(path, day="today")
    assert (nothing.status_code, nothing.json()["data"]) == (200, [])
    assert nothing.json()["meta"]["total"] == 0


def ask(bison: Bison, path: str) -> httpx.Response:
    if path.endswith("switch-workspace"):
        return bison.switch(bison.http.get("/sandbox/ui-user").json()["workspace_id"])
    return bison.get(path, **PERIOD, day="today")


@pytest.mark.parametrize(
    "path", ["/api/users", WORKSPACES, "/api/replies", f"{WORKSPACES}/switch-workspace"]
)
def test_text_fields_may_hold_raw_control_characters(bison: Bison, path: str) -> None:
    plain = ask(bison, path).json()
    bison.variants(control_characters=True)
    raw = ask(bison, path)
    with pytest.raises(json.JSONDecodeError):
        json.loads(raw.text)
    assert {"\x01", "\x0b", "\n", "\t"} <= set(raw.text)
    assert json.loads("".join(each for each in raw.text if ord(each) >= 32)) == plain


def test_every_control_character_turns_up_in_some_name(stage: Stage) -> None:
    with bison_on(stage, options(clients=32, first_workspace_id=1)) as bison:
        bison.variants(control_characters=True, paging="whole")
        text = bison.get(WORKSPACES).text
    assert {each for each in text if ord(each) < 32} == {chr(number) for number in range(32)}


def objects(content: object) -> list[dict[str, object]]:
    """All objects of a JSON document, whatever holds them."""
    if isinstance(content, list):
        return [found for each in content for found in objects(each)]
    if isinstance(content, dict):
        return [content, *(found for each in content.values() for found in objects(each))]
    return []


@pytest.mark.parametrize(
    "path",
    [
        "/api/users",
        WORKSPACES,
        f"{WORKSPACES}/stats",
        f"{WORKSPACES}/line-area-chart-stats",
        "/api/campaigns/sending-schedules",
        "/api/replies",
        "/api/webhook-url",
        "/api/campaigns",
        "/api/events",
        f"{WORKSPACES}/switch-workspace",
    ],
)
def test_every_object_of_an_answer_may_hold_fields_that_no_document_knows(
    bison: Bison, path: str
) -> None:
    plain = ask(bison, path).json()
    assert not any("undocumented" in each for each in objects(plain))
    bison.variants(extra_fields=True)
    more = ask(bison, path).json()
    assert without_extras(more) == plain
    extras = [each for each in objects(more) if each.keys() != {"since", "note"}]
    assert extras
    assert all({"undocumented", "undocumented_flag"} <= each.keys() for each in extras)


def without_extras(content: object) -> object:
    if isinstance(content, list):
        return [without_extras(each) for each in content]
    if isinstance(content, dict):
        return {
            name: without_extras(each)
            for name, each in content.items()
            if not name.startswith("undocumented")
        }
    return content
