import asyncio
import json
from datetime import UTC, datetime

import httpx
import pytest

from bison_sandbox import create_app
from bison_sandbox.control.agency import is_loopback
from kpi_pipeline_tests.bison_sandbox.running import (
    TODAY,
    WORKSPACES,
    Bison,
    Stage,
    bison_on,
    options,
)

HEADER = (
    "instance,bison_workspace_id,name,display_name,active,monthly_kpi_target,"
    "monthly_sending_target,min_reply_rate,api_key"
)


def listed(bison: Bison) -> dict[int, str]:
    rows = []
    for page in (1, 2):
        rows += bison.data(WORKSPACES, page=page)
    return {row["id"]: row["name"] for row in rows}


def test_the_setup_tells_all_that_a_client_needs(bison: Bison) -> None:
    setup = bison.http.get("/sandbox/setup").json()
    assert setup == {
        "instance_url": str(bison.http.base_url).rstrip("/"),
        "master_key": bison.master_key,
        "today": str(TODAY),
        "timezone": "America/Chicago",
    }
    assert bison.data("/api/users")["id"]


def test_the_csv_lists_every_client_with_keys_that_work(bison: Bison) -> None:
    answer = bison.http.get("/sandbox/clients.csv", params={"instance": "second"})
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.text.splitlines()[0] == HEADER
    rows = bison.clients()
    assert len(rows) == 26
    assert {int(row["bison_workspace_id"]): row["name"] for row in rows} == listed(bison)
    assert {row["active"] for row in rows} == {"yes"}
    assert {row["instance"] for row in rows} == {"main"}
    assert all(line.startswith("second,") for line in answer.text.splitlines()[1:])
    assert sum(1 for row in rows if row["name"].endswith(" ")) == 1
    assert sum(1 for row in rows if not row["monthly_kpi_target"]) == 1
    keyed = bison.with_key()
    assert len(keyed) == 23
    for row in keyed:
        team = bison.data("/api/users", key=row["api_key"])["workspace"]
        assert team["id"] == int(row["bison_workspace_id"])


def test_a_frozen_clock_stays_until_it_runs_again(bison: Bison) -> None:
    bison.freeze("2026-03-31T23:30:00-05:00")
    assert bison.http.get("/sandbox/setup").json()["today"] == "2026-03-31"
    bison.freeze("2026-04-01T05:00:00Z")
    assert bison.http.get("/sandbox/setup").json()["today"] == "2026-04-01"
    bison.freeze(None)
    assert bison.http.get("/sandbox/setup").json()["today"] == str(TODAY)


@pytest.mark.parametrize("body", [{}, {"now": "tomorrow"}, {"now": "2026-03-18T12:00:00"}])
def test_an_instant_without_its_offset_is_refused(bison: Bison, body: dict[str, str]) -> None:
    assert bison.http.post("/sandbox/clock", json=body).status_code == 422


def test_a_revoked_key_is_unauthenticated_until_it_is_restored(bison: Bison) -> None:
    mine, other = bison.with_key()[:2]
    body = {"workspace_id": int(mine["bison_workspace_id"])}
    assert bison.http.post("/sandbox/keys/revoke", json=body).status_code == 200
    assert bison.get("/api/users", key=mine["api_key"]).status_code == 401
    assert bison.get("/api/users", key=other["api_key"]).status_code == 200
    assert bison.switch(body["workspace_id"]).status_code == 200
    made = bison.call("POST", f"{WORKSPACES}/{body['workspace_id']}/api-tokens", json={"name": "n"})
    new_key = made.json()["data"]["plain_text_token"]
    assert bison.get("/api/users", key=new_key).status_code == 200
    assert bison.http.post("/sandbox/keys/restore", json=body).status_code == 200
    assert bison.get("/api/users", key=mine["api_key"]).status_code == 200


def test_a_deleted_workspace_is_gone_until_it_is_restored(bison: Bison) -> None:
    mine = bison.with_key()[0]
    workspace_id = int(mine["bison_workspace_id"])
    bison.switch(workspace_id)
    assert bison.http.delete(f"/sandbox/workspaces/{workspace_id}").status_code == 200
    gone = bison.get("/api/webhook-events/event-types", key=mine["api_key"])
    assert gone.status_code == 404
    assert gone.json()["data"] == {"success": False, "message": "record_not_found"}
    switch = f"{WORKSPACES}/switch-workspace"
    assert bison.call("POST", switch, key=mine["api_key"], json={}).status_code == 404
    assert bison.switch(workspace_id).status_code == 404
    assert workspace_id not in listed(bison)
    assert len(bison.clients()) == 25
    assert bison.data("/api/users")["workspace"]["id"] != workspace_id

    assert bison.http.delete(f"/sandbox/workspaces/{workspace_id}").status_code == 404
    assert bison.http.post(f"/sandbox/workspaces/{workspace_id}/restore").status_code == 200
    assert bison.data("/api/users", key=mine["api_key"])["workspace"]["id"] == workspace_id
    assert workspace_id in listed(bison)
    assert bison.http.post(f"/sandbox/workspaces/{workspace_id}/restore").status_code == 404


def test_a_master_key_without_any_workspace_left_finds_nothing(stage: Stage) -> None:
    with bison_on(stage, options(clients=1)) as bison:
        workspace_id = bison.clients()[0]["bison_workspace_id"]
        bison.http.delete(f"/sandbox/workspaces/{workspace_id}")
        assert bison.get("/api/users").status_code == 404
        assert bison.data(WORKSPACES) == []


def test_a_renamed_workspace_keeps_its_id_and_its_numbers(bison: Bison) -> None:
    mine = bison.with_key()[0]
    workspace_id, key = int(mine["bison_workspace_id"]), mine["api_key"]
    before = bison.series(TODAY, TODAY, key=key)
    path = f"/sandbox/workspaces/{workspace_id}/rename"
    assert bison.http.post(path, json={"name": " Ninth Wave "}).status_code == 200
    assert listed(bison)[workspace_id] == " Ninth Wave "
    assert bison.data("/api/users", key=key)["workspace"]["name"] == " Ninth Wave "
    assert bison.series(TODAY, TODAY, key=key) == before


def test_an_added_workspace_starts_today_and_answers_the_master_key(bison: Bison) -> None:
    added = bison.http.post("/sandbox/workspaces", json={"name": "Newcomer"})
    assert added.status_code == 201
    workspace_id = added.json()["id"]
    assert listed(bison)[workspace_id] == "Newcomer"
    assert bison.clients()[-1]["api_key"] == ""
    bison.switch(workspace_id)
    sent = bison.series(TODAY.replace(day=1), TODAY)["Sent"]
    assert sum(sent) == sent[-1] > 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/sandbox/keys/revoke"),
        ("POST", "/sandbox/keys/restore"),
        ("POST", "/sandbox/workspaces/999999/rename"),
        ("POST", "/sandbox/workspaces/999999/restore"),
        ("DELETE", "/sandbox/workspaces/999999"),
    ],
)
def test_a_switch_for_an_unknown_workspace_is_not_found(
    bison: Bison, method: str, path: str
) -> None:
    body = {"workspace_id": 999_999, "name": "x"}
    assert bison.http.request(method, path, json=body).status_code == 404


def test_the_log_tells_who_called_what_for_which_workspace(bison: Bison) -> None:
    mine = bison.with_key()[1]
    workspace_id, key_id = int(mine["bison_workspace_id"]), int(mine["api_key"].split("|")[0])
    begun = datetime.now(UTC)
    assert bison.http.delete("/sandbox/calls").status_code == 204
    bison.get("/api/users", key=mine["api_key"], page=1)
    bison.switch(workspace_id)
    bison.get("/api/users")
    bison.get(WORKSPACES)
    bison.get("/api/users", key="77|wrong")
    bison.http.get("/api/users")
    bison.get("/api/nothing")
    answer = bison.http.get("/sandbox/calls").json()
    assert answer["total"] == 7
    names = ("method", "path", "query", "key", "key_id", "workspace_id", "status")
    users, switch = "/api/users", f"{WORKSPACES}/switch-workspace"
    assert [tuple(call[name] for name in names) for call in answer["calls"]] == [
        ("GET", users, "page=1", "workspace", key_id, workspace_id, 200),
        ("POST", switch, "", "master", 1, workspace_id, 200),
        ("GET", users, "", "master", 1, workspace_id, 200),
        ("GET", WORKSPACES, "", "master", 1, None, 200),
        ("GET", users, "", "rejected", 77, None, 401),
        ("GET", users, "", "none", None, None, 401),
        ("GET", "/api/nothing", "", "master", 1, None, 404),
    ]
    times = [datetime.fromisoformat(call["at"]) for call in answer["calls"]]
    assert times == sorted(times)
    assert times[0] >= begun
    for call, arrived in zip(answer["calls"], times, strict=True):
        assert arrived <= datetime.fromisoformat(call["answered_at"]) <= datetime.now(UTC)
        assert call["fault"] is None


def test_the_log_never_holds_a_secret(bison: Bison) -> None:
    key = bison.with_key()[0]["api_key"]
    bison.get("/api/users", key=key, api_key=key)
    bison.get(f"/api/{key}", key=key + "x")
    log = json.dumps(bison.calls())
    assert key.split("|")[1] not in log
    assert len(bison.calls()) == 2


@pytest.mark.parametrize("path", ["/sandbox/setup", "/"])
@pytest.mark.parametrize(("caller", "status"), [("127.0.0.1", 200), ("192.0.2.4", 403)])
def test_the_master_key_is_shown_on_this_machine_alone(caller: str, status: int, path: str) -> None:
    app = create_app(options())

    async def ask() -> httpx.Response:
        # No other machine is at hand: the caller's address is given to the application directly.
        transport = httpx.ASGITransport(app, client=(caller, 40_000))
        async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as http:
            return await http.get(path)

    answer = asyncio.run(ask())
    assert answer.status_code == status
    assert (app.state.sandbox.master_key.token in answer.text) == (status == 200)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"])
def test_this_machine_may_use_the_sandboxes_own_switches(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["192.0.2.4", "::ffff:192.0.2.4", "2001:db8::1", "", "example"])
def test_other_machines_may_not(host: str) -> None:
    assert not is_loopback(host)
