"""Which calls a fault strikes, and how faults are kept."""

from typing import Any

import pytest

from kpi_pipeline_tests.bison_sandbox.running import WORKSPACES, Bison, Stage, bison_on, options

USERS = "/api/users"


def statuses(bison: Bison, times: int, path: str = USERS) -> list[int]:
    return [bison.get(path).status_code for _ in range(times)]


def test_faults_are_listed_as_they_were_given_with_how_often_they_struck(bison: Bison) -> None:
    assert bison.http.get("/sandbox/faults").json() == {"faults": []}
    first = bison.fault("status", status=500, path="stats")
    second = bison.fault("edit", pointer="/data/name", value=None, times=1)
    assert first != second
    bison.get(USERS)
    bison.get(USERS)
    assert bison.http.get("/sandbox/faults").json() == {
        "faults": [
            {"id": first, "kind": "status", "path": "stats", "status": 500, "struck": 0},
            {
                "id": second,
                "kind": "edit",
                "times": 1,
                "pointer": "/data/name",
                "value": None,
                "struck": 1,
            },
        ]
    }


def test_faults_are_removed_one_by_one_or_all_together(bison: Bison) -> None:
    one, _ = bison.fault("empty", path="users"), bison.fault("html", path=WORKSPACES)
    assert bison.http.delete(f"/sandbox/faults/{one}").status_code == 204
    assert bison.http.delete(f"/sandbox/faults/{one}").status_code == 404
    assert bison.get(USERS).json()
    assert bison.get(WORKSPACES).text.startswith("<!DOCTYPE")
    assert bison.http.delete("/sandbox/faults").status_code == 204
    assert bison.get(WORKSPACES).json()
    assert bison.fault("empty") > one + 1


def test_a_fault_lets_calls_pass_first_and_strikes_so_many(bison: Bison) -> None:
    bison.fault("status", status=500, after=1, times=2)
    assert statuses(bison, 5) == [200, 500, 500, 200, 200]
    assert bison.struck() == [2]


def test_without_a_number_of_times_a_fault_strikes_for_ever(bison: Bison) -> None:
    bison.fault("status", status=500, times=None)
    assert statuses(bison, 6) == [500] * 6


def test_the_first_fault_that_fits_strikes_and_the_next_does_not_see_that_call(
    bison: Bison,
) -> None:
    bison.fault("status", status=500, times=2)
    bison.fault("status", status=502, after=1)
    assert statuses(bison, 4) == [500, 500, 200, 502]


def test_a_fault_strikes_by_path_and_method(bison: Bison) -> None:
    bison.fault("status", status=500, path="webhook", method="post")
    hook = {"name": "kpi", "url": "https://kpi.example/in", "events": ["email_sent"]}
    assert bison.call("POST", "/api/webhook-url", json=hook).status_code == 500
    assert bison.get("/api/webhook-url").status_code == 200
    assert bison.switch(int(bison.clients()[0]["bison_workspace_id"])).status_code == 200


@pytest.mark.parametrize(("key", "struck"), [("workspace", [200, 500]), ("master", [500, 200])])
def test_a_fault_strikes_by_the_sort_of_key(bison: Bison, key: str, struck: list[int]) -> None:
    bison.fault("status", status=500, key=key)
    own = bison.with_key()[0]["api_key"]
    assert [bison.get(USERS).status_code, bison.get(USERS, key=own).status_code] == struck


def test_a_fault_strikes_the_calls_of_one_workspace_with_whatever_key(bison: Bison) -> None:
    mine, other = bison.with_key()[:2]
    here, there = int(mine["bison_workspace_id"]), int(other["bison_workspace_id"])
    bison.switch(here)
    bison.fault("status", status=500, workspace_id=here)
    assert bison.get(USERS).status_code == 500
    assert bison.get(USERS, key=mine["api_key"]).status_code == 500
    assert bison.get(USERS, key=other["api_key"]).status_code == 200
    # A switch and a new key count for the workspace that they are meant for, as in the log.
    assert bison.switch(there).status_code == 200
    assert bison.switch(here).status_code == 500
    assert bison.get(USERS).status_code == 200
    for workspace_id, status in ((here, 500), (there, 200)):
        path = f"{WORKSPACES}/{workspace_id}/api-tokens"
        assert bison.call("POST", path, json={"name": "x"}).status_code == status


def test_a_fault_whose_every_selector_fits_strikes_and_no_other(bison: Bison) -> None:
    mine = bison.with_key()[0]
    fits = {
        "path": "users",
        "method": "GET",
        "workspace_id": int(mine["bison_workspace_id"]),
        "key": "workspace",
    }
    misfits: dict[str, Any] = {"path": "stats", "method": "PUT", "workspace_id": 1, "key": "master"}
    for name, value in misfits.items():
        bison.fault("status", status=500, **fits | {name: value})
    assert bison.get(USERS, key=mine["api_key"]).status_code == 200
    bison.fault("status", status=500, **fits)
    assert bison.get(USERS, key=mine["api_key"]).status_code == 500


def test_a_call_without_a_good_key_meets_no_fault(bison: Bison) -> None:
    bison.fault("status", status=500)
    assert bison.get(USERS, key="1|wrong").status_code == 401
    assert bison.http.get(USERS).status_code == 401
    assert bison.http.get("/sandbox/setup").status_code == 200
    assert bison.struck() == [0]


def test_a_call_that_the_bottleneck_refuses_meets_no_fault(stage: Stage) -> None:
    with bison_on(stage, options(calls_per_second=0.01)) as bison:
        bison.fault("status", status=500)
        assert statuses(bison, 2) == [500, 429]
        assert bison.struck() == [1]


def test_the_log_names_the_fault_and_the_workspace_it_struck(bison: Bison) -> None:
    workspace_id = int(bison.clients()[2]["bison_workspace_id"])
    bison.switch(workspace_id)
    bison.fault("status", status=503, path="users")
    bison.get(USERS)
    bison.get("/api/webhook-url")
    shown = [(call["fault"], call["workspace_id"], call["status"]) for call in bison.calls()]
    assert shown[1:] == [("status", workspace_id, 503), (None, workspace_id, 200)]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "kind"),
        ({"kind": "sparkle"}, "kind"),
        ({"kind": ["status"]}, "kind"),
        ({"kind": "status"}, "status"),
        ({"kind": "status", "status": 99}, "status"),
        ({"kind": "status", "status": "500"}, "status"),
        ({"kind": "status", "status": 429, "retry_after": True}, "retry_after"),
        ({"kind": "status", "status": 429, "retry_after": "a\nb"}, "retry_after"),
        ({"kind": "status", "status": 500, "retry_after": 1}, "retry_after"),
        ({"kind": "status", "status": 500, "message": 5}, "message"),
        ({"kind": "success_false", "value": True}, "value"),
        ({"kind": "slow"}, "seconds"),
        ({"kind": "slow", "seconds": -1}, "seconds"),
        ({"kind": "stall", "seconds": "long"}, "seconds"),
        ({"kind": "edit", "value": 1}, "pointer"),
        ({"kind": "edit", "pointer": "data", "value": 1}, "pointer"),
        ({"kind": "edit", "pointer": "/a~2", "value": 1}, "pointer"),
        ({"kind": "edit", "pointer": "/data"}, "value"),
        ({"kind": "edit", "pointer": "/data", "value": 1, "remove": True}, "value"),
        ({"kind": "edit", "pointer": "", "remove": True}, "pointer"),
        ({"kind": "move_user"}, "to"),
        ({"kind": "move_user", "to": 999_999}, "to"),
        ({"kind": "move_user", "to": 14, "when": "later"}, "when"),
        ({"kind": "cut", "sparkle": 1}, "sparkle"),
        ({"kind": "cut", "path": 1}, "path"),
        ({"kind": "cut", "key": "none"}, "key"),
        ({"kind": "cut", "after": -1}, "after"),
        ({"kind": "cut", "times": 0}, "times"),
        ([], "body"),
    ],
)
def test_a_wrong_fault_is_refused_by_field(bison: Bison, body: object, field: str) -> None:
    refused = bison.http.post("/sandbox/faults", json=body)
    assert refused.status_code == 422
    data = refused.json()["data"]
    assert list(data["errors"]) == [field]
    assert data["message"] == data["errors"][field][0]
    assert bison.struck() == []
