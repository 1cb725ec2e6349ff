"""Webhooks registered, verified and removed in the workspaces of a local Email Bison."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from pydantic import SecretStr

from kpi_pipeline.db.registry.clients import Client, active_clients
from kpi_pipeline.db.tables import metadata
from kpi_pipeline.sync.registry import refresh_registry
from kpi_pipeline.sync.webhooks import (
    EVENTS,
    Planner,
    WebhooksOutcome,
    apply_plans,
    plan_registration,
    plan_removal,
    verify_webhooks,
)
from kpi_pipeline_tests.agency import SWITCH, WHO_AM_I, Agency, Bystander
from kpi_pipeline_tests.bison_sandbox.running import Bison, Stage

SECRET = "invented-secret-of-the-instance-main"
GATEWAY = "https://kpi.agency.example"
OURS = f"{GATEWAY}/webhooks/bison/{SECRET}"
CRM = "https://crm.example/in"
HOOKS = "/api/webhook-url"


@pytest.fixture
def agency(agency: Agency) -> Agency:
    """The agency, with a gateway that has a public address."""
    return agency.with_settings(gateway_url=GATEWAY, webhook_secret={"main": SecretStr(SECRET)})


@pytest.fixture
def six(agency: Agency) -> Agency:
    """The agency, of which six clients are active."""
    agency.sql("UPDATE clients SET active = false WHERE workspace <> ALL(:few)", few=agency.some)
    agency.workspaces = agency.some
    return agency


def clients(agency: Agency, workspaces: Sequence[str]) -> list[Client]:
    with agency.app.engine.connect() as connection:
        return [it for it in active_clients(connection) if it.workspace in workspaces]


def changed(
    agency: Agency,
    workspaces: Sequence[str],
    plan: Planner = plan_registration,
    *,
    dry_run: bool = False,
) -> dict[str, WebhooksOutcome]:
    chosen = clients(agency, workspaces)
    outcomes = asyncio.run(apply_plans(agency.app, chosen, plan, dry_run=dry_run))
    assert [it.client for it in outcomes] == chosen
    return {it.client.workspace: it for it in outcomes}


def problems(agency: Agency, workspaces: Sequence[str]) -> dict[str, list[str]]:
    outcomes = asyncio.run(verify_webhooks(agency.app, clients(agency, workspaces)))
    assert [it.error for it in outcomes if it.error] == []
    return {it.client.workspace: list(it.problems) for it in outcomes}


def key_of(agency: Agency, workspace: str) -> str:
    """A key with which the test acts in the workspace: its own, or the switched master key."""
    if key := agency.key(workspace):
        return key
    agency.bison.switch(agency.ids[workspace])
    return agency.bison.master_key


def hooks(agency: Agency, workspace: str) -> list[dict[str, Any]]:
    """What the workspace has, over all pages."""
    key = key_of(agency, workspace)
    found: list[dict[str, Any]] = []
    for page in range(1, 4):
        found += agency.bison.data(HOOKS, key=key, page=page)
    return found


def add(agency: Agency, workspace: str, url: str, events: Sequence[str] = EVENTS) -> None:
    body = {"name": "by hand", "url": url, "events": list(events)}
    made = agency.bison.call("POST", HOOKS, key=key_of(agency, workspace), json=body)
    assert made.status_code == 201, made.text


def writes(agency: Agency) -> list[str]:
    """The methods of the calls that change webhooks."""
    calls = [call for of_client in agency.calls().values() for call in of_client]
    return [it["method"] for it in calls if HOOKS in it["path"] and it["method"] != "GET"]


def test_every_workspace_gets_one_webhook_through_its_own_key_or_the_master_key(
    agency: Agency,
) -> None:
    outcomes = changed(agency, agency.workspaces)

    assert {it.error for it in outcomes.values()} == {None}
    assert {len(it.changes) for it in outcomes.values()} == {1}
    for workspace in agency.some + agency.keyless:
        (found,) = hooks(agency, workspace)
        assert (found["url"], sorted(found["events"])) == (OURS, sorted(EVENTS))
    assert problems(agency, agency.workspaces) == {name: [] for name in agency.workspaces}


def test_a_second_registration_changes_nothing(agency: Agency) -> None:
    changed(agency, agency.some)
    before = {name: hooks(agency, name) for name in agency.some}
    agency.forget_calls()

    outcomes = changed(agency, agency.some)

    assert {len(it.changes) for it in outcomes.values()} == {0}
    assert writes(agency) == []
    assert {name: hooks(agency, name) for name in agency.some} == before


def test_a_dry_run_plans_and_writes_nothing(agency: Agency) -> None:
    outcomes = changed(agency, agency.some, dry_run=True)
    assert [it.verb for out in outcomes.values() for it in out.changes] == ["create"] * 6
    assert writes(agency) == []


def test_only_webhooks_of_our_address_are_changed_on_whatever_page_they_are(
    agency: Agency,
) -> None:
    workspace = agency.keyed[0]
    for _ in range(17):
        add(agency, workspace, CRM, ["email_opened"])
    add(agency, workspace, OURS, EVENTS[:2])
    add(agency, workspace, OURS, EVENTS[2:])
    add(agency, workspace, f"{GATEWAY}/webhooks/bison/secret-of-last-year", EVENTS)
    others = [it for it in hooks(agency, workspace) if it["url"] != OURS]
    assert len(others) == 18
    (found,) = problems(agency, [workspace]).values()
    assert [it.partition(":")[0] for it in found] == ["doubled", "dead"]

    changed(agency, [workspace])

    after = hooks(agency, workspace)
    assert [it for it in after if it["url"] != OURS] == others
    (ours,) = [it for it in after if it["url"] == OURS]
    assert (ours["name"], sorted(ours["events"])) == ("by hand", sorted(EVENTS))

    changed(agency, [workspace], partial(plan_registration, delete_dead=True))
    assert problems(agency, [workspace]) == {workspace: []}
    changed(agency, [workspace], plan_removal)
    assert [it["url"] for it in hooks(agency, workspace)] == [CRM] * 17


def test_the_clients_of_the_master_key_come_one_after_the_other_in_their_own_workspace(
    agency: Agency,
) -> None:
    changed(agency, agency.keyless)
    order = [call for call in agency.bison.calls() if call["key"] == "master"]
    acting = [call["workspace_id"] for call in order if call["path"] == HOOKS]
    assert acting == [agency.ids[name] for name in agency.keyless for _ in range(3)]
    assert [call["path"] for call in order[:2]] == [SWITCH, WHO_AM_I]
    assert order[-1]["path"] == WHO_AM_I


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_master_key_that_is_switched_meanwhile_leaves_no_workspace_without_its_webhook(
    agency: Agency, when: str
) -> None:
    first, second = agency.keyless[:2]
    agency.bison.fault(
        "move_user",
        path=HOOKS,
        method="POST",
        key="master",
        when=when,
        to=agency.ids[second],
        times=1,
    )

    outcomes = changed(agency, [first, second])

    assert agency.bison.struck() == [1]
    assert (outcomes[first].error, len(outcomes[first].changes)) == (None, 1)
    # Before the call: it went to the other workspace, where a webhook was not missing any more.
    assert [len(hooks(agency, name)) for name in (first, second)] == [1, 1]
    assert problems(agency, [first, second]) == {first: [], second: []}


def test_a_client_that_fails_stops_no_other(agency: Agency) -> None:
    bad, *good = agency.keyed[:3]
    agency.revoke(bad)

    outcomes = changed(agency, [bad, *good])

    assert str(outcomes[bad].error).startswith(f"{bad}: GET {WHO_AM_I} answered 401")
    assert [outcomes[name].error for name in good] == [None, None]
    assert [len(outcomes[name].changes) for name in good] == [1, 1]


class Deaf:
    """Carries a call out and answers something else, as a proxy does that gives up too early."""

    def __init__(self, stage: Stage, method: str, status: int, body: bytes) -> None:
        self._app = stage.app
        self._method = method
        self._answer = status, body

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def other(message: Any) -> None:
            status, body = self._answer
            if message["type"] == "http.response.start":
                message = {**message, "status": status, "headers": []}
            elif message["type"] == "http.response.body":
                message = {**message, "body": body}
            await send(message)

        hit = scope.get("method") == self._method and HOOKS in scope.get("path", "")
        await self._app(scope, receive, other if hit else send)


@pytest.mark.parametrize(("status", "body"), [(204, b""), (504, b"<html>"), (200, b"[]")])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_what_an_odd_answer_hides_the_list_of_webhooks_shows(
    agency: Agency, stage: Stage, method: str, status: int, body: bytes
) -> None:
    workspace = agency.keyed[0]
    if method != "POST":
        add(agency, workspace, OURS, EVENTS[:2])
        add(agency, workspace, OURS, EVENTS[:3])
    stage.app = Deaf(stage, method, status, body)

    (outcome,) = changed(agency, [workspace]).values()

    assert outcome.error is None
    (found,) = hooks(agency, workspace)
    assert sorted(found["events"]) == sorted(EVENTS)


def test_a_change_that_was_not_made_is_reported_with_the_reason_and_not_as_made(
    agency: Agency, stage: Stage
) -> None:
    workspace = agency.keyed[0]
    body = b'{"data": {"success": false, "message": "The limit of webhooks is reached: %s"}}'
    refusal = body % OURS.encode()

    class Refusing(Bystander):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope.get("method") == "POST":
                await super().__call__(scope, receive, send)
            else:
                await stage_app(scope, receive, send)

    stage_app = stage.app
    stage.app = Refusing(stage_app, str(agency.key(workspace)), HOOKS, 200, refusal)

    (outcome,) = changed(agency, [workspace]).values()

    assert "The limit of webhooks is reached" in str(outcome.error)
    assert SECRET not in str(outcome.error)
    assert outcome.changes == []


def test_the_registry_reads_the_webhooks_of_all_clients_and_names_what_is_wrong(
    six: Agency,
) -> None:
    changed(six, six.workspaces)
    keyless, other = six.keyless[0], six.keyed[0]
    changed(six, [keyless], plan_removal)
    add(six, other, OURS)

    report = asyncio.run(refresh_registry(six.app))

    assert [it.split(":")[:2] for it in report.webhooks] == [
        [name, " missing" if name == keyless else " doubled"] for name in sorted([keyless, other])
    ]
    assert SECRET not in str(report)
    assert report.unchecked_webhooks == []


def test_the_registry_reads_no_webhooks_without_a_public_address(
    agency: Agency, bison: Bison
) -> None:
    report = asyncio.run(refresh_registry(agency.with_settings(gateway_url=None).app))
    assert report.webhooks == []
    assert HOOKS not in {call["path"] for call in bison.calls()}


def test_a_client_whose_key_is_rejected_is_reported_once(six: Agency) -> None:
    changed(six, six.workspaces)
    six.revoke(six.keyed[0])
    report = asyncio.run(refresh_registry(six.app))
    assert len(report.bad_keys) == 1
    assert report.webhooks == report.unchecked_webhooks == []


def test_webhooks_that_could_not_be_read_are_not_called_missing(six: Agency, stage: Stage) -> None:
    changed(six, six.workspaces)
    slug = six.keyed[1]
    stage.app = Bystander(stage.app, str(six.key(slug)), HOOKS, 503, b"")

    report = asyncio.run(refresh_registry(six.app))

    (line,) = report.unchecked_webhooks
    assert line.startswith(f"{slug}: GET {HOOKS} answered 503")
    assert report.webhooks == []


def test_no_log_and_no_table_holds_an_address(
    agency: Agency, stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    add(agency, agency.keyed[0], OURS, EVENTS[:2])
    stage.app = Deaf(stage, "POST", 503, OURS.encode())

    changed(agency, agency.some)
    asyncio.run(refresh_registry(agency.app))
    changed(agency, agency.some, plan_removal)

    assert "POST" in caplog.text
    assert SECRET not in caplog.text
    for table in metadata.tables.values():
        assert SECRET not in repr(agency.table(table))
