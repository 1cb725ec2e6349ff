import re
from hashlib import sha256

import pytest

from kpi_pipeline_tests.bison_sandbox.running import WORKSPACES, Bison


def test_a_master_key_acts_where_its_user_was_switched_to(bison: Bison) -> None:
    target = bison.clients()[4]
    workspace_id = int(target["bison_workspace_id"])
    assert bison.data("/api/users")["workspace"]["id"] != workspace_id
    switched = bison.switch(workspace_id)
    assert switched.status_code == 200
    assert switched.json() == {"data": {"name": target["name"]}}
    user = bison.data("/api/users")
    assert user["workspace"]["id"] == workspace_id
    assert user["workspace"]["name"] == target["name"]
    assert {"id", "name", "email"} <= set(user)


def test_the_user_shows_the_members_that_a_live_instance_showed(bison: Bison) -> None:
    user = bison.data("/api/users")
    assert "team" not in user
    assert {"personal_team", "main", "parent_id", "webhooks_secret_key"} <= set(user["workspace"])
    secrets = {
        bison.data("/api/users", key=row["api_key"])["workspace"]["webhooks_secret_key"]
        for row in bison.with_key()[:3]
    }
    assert len(secrets) == 3
    assert min(map(len, secrets)) == 48
    assert "webhooks_secret_key" not in bison.data(WORKSPACES)[0]


def test_the_workspace_of_a_user_may_be_called_team_or_both_or_be_two(bison: Bison) -> None:
    key = bison.with_key()[0]["api_key"]
    acting = bison.data("/api/users", key=key)["workspace"]
    shown = {}
    for variant in ("team", "both", "different"):
        bison.variants(user_member=variant)
        user = bison.data("/api/users", key=key)
        shown[variant] = [user.get("workspace"), user.get("team")]
    assert shown["team"] == [None, acting]
    assert shown["both"] == [acting, acting]
    assert shown["different"][0] == acting
    assert shown["different"][1]["id"] != acting["id"]


def test_a_workspace_key_stays_in_its_workspace_whatever_the_user_does(bison: Bison) -> None:
    mine, other = bison.with_key()[:2]
    bison.switch(int(other["bison_workspace_id"]))
    team = bison.data("/api/users", key=mine["api_key"])["workspace"]
    assert team["id"] == int(mine["bison_workspace_id"])


def test_a_stray_workspace_id_is_ignored(bison: Bison) -> None:
    mine, other = bison.with_key()[:2]
    stray = int(other["bison_workspace_id"])
    team = bison.data("/api/users", key=mine["api_key"], workspace_id=stray)["workspace"]
    assert team["id"] == int(mine["bison_workspace_id"])


def test_a_master_key_lists_all_workspaces_fifteen_a_page(bison: Bison) -> None:
    first = bison.get(WORKSPACES, per_page=100).json()
    second = bison.get(WORKSPACES, page=2).json()
    assert len(first["data"]) == 15
    assert len(second["data"]) == 11
    assert first["meta"] == {
        "current_page": 1,
        "from": 1,
        "last_page": 2,
        "path": f"{bison.http.base_url}".rstrip("/") + WORKSPACES,
        "per_page": 15,
        "to": 15,
        "total": 26,
    }
    assert first["links"]["prev"] is None
    assert second["links"]["next"] is None
    followed = bison.call("GET", first["links"]["next"]).json()
    assert followed["data"] == second["data"]
    ids = [row["id"] for row in first["data"] + second["data"]]
    assert ids == [int(row["bison_workspace_id"]) for row in bison.clients()]
    assert set(first["data"][0]) >= {"id", "name", "personal_team", "main", "parent_id"}
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000000Z"
    assert re.fullmatch(stamp, first["data"][0]["created_at"])


def test_a_page_past_the_last_is_empty_and_one_past_a_thousand_is_refused(bison: Bison) -> None:
    beyond = bison.get(WORKSPACES, page=3).json()
    assert beyond["data"] == []
    assert beyond["meta"]["total"] == 26
    assert bison.get(WORKSPACES, page=1001).status_code == 422


def test_a_workspace_key_lists_its_own_workspace_alone(bison: Bison) -> None:
    mine = bison.with_key()[3]
    rows = bison.data(WORKSPACES, key=mine["api_key"])
    assert [row["id"] for row in rows] == [int(mine["bison_workspace_id"])]


def test_a_new_key_works_at_once_and_where_it_was_made(bison: Bison) -> None:
    without = next(row for row in bison.clients() if not row["api_key"])
    workspace_id = int(without["bison_workspace_id"])
    path = f"{WORKSPACES}/{workspace_id}/api-tokens"
    made = bison.call("POST", path, json={"name": "pipeline"})
    assert made.status_code == 200
    token = made.json()["data"]
    assert token["name"] == "pipeline"
    key = token["plain_text_token"]
    assert re.fullmatch(rf"{token['id']}\|[0-9A-Za-z]{{48}}", key)
    assert token["token_hash"] == sha256(key.split("|")[1].encode()).hexdigest()
    assert {"abilities", "created_at", "updated_at"} <= set(token)
    assert bison.data("/api/users", key=key)["workspace"]["id"] == workspace_id


@pytest.mark.parametrize("path", ["switch-workspace", "14/api-tokens"])
def test_a_workspace_key_is_refused_what_only_a_master_key_may(bison: Bison, path: str) -> None:
    key = bison.with_key()[0]["api_key"]
    body = {"team_id": 14, "name": "x"}
    refused = bison.call("POST", f"{WORKSPACES}/{path}", key=key, json=body)
    assert refused.status_code == 403
    assert refused.json() == {
        "data": {
            "success": False,
            "message": "This action is unauthorized. The api key does not match the workspace "
            "the record is on.",
        }
    }


@pytest.mark.parametrize("key", ["1|wrong", "nonsense", "\xe9|x"])
def test_an_unknown_key_is_unauthenticated(bison: Bison, key: str) -> None:
    refused = bison.http.get("/api/users", headers=[(b"Authorization", f"Bearer {key}".encode())])
    assert refused.status_code == 401
    assert refused.json() == {"data": {"success": False, "message": "Unauthenticated."}}


def test_no_key_at_all_is_unauthenticated(bison: Bison) -> None:
    assert bison.http.get("/api/users").status_code == 401


@pytest.mark.parametrize("team_id", [None, "14", True, 1.5])
def test_a_switch_asks_for_a_whole_number(bison: Bison, team_id: object) -> None:
    path = f"{WORKSPACES}/switch-workspace"
    refused = bison.call("POST", path, json={"team_id": team_id})
    assert refused.status_code == 422
    assert list(refused.json()["data"]["errors"]) == ["team_id"]
    assert bison.call("POST", path, content=b"no json").status_code == 422


def test_a_switch_to_a_workspace_that_is_not_there_is_not_found(bison: Bison) -> None:
    before = bison.data("/api/users")["workspace"]["id"]
    missing = bison.switch(999_999)
    assert missing.status_code == 404
    assert missing.json()["data"] == {"success": False, "message": "record_not_found"}
    assert bison.data("/api/users")["workspace"]["id"] == before


def test_an_unknown_path_and_a_wrong_method_answer_in_json(bison: Bison) -> None:
    for response, status in (
        (bison.get("/api/webhooks"), 404),
        (bison.get("/api/users/"), 404),
        (bison.call("DELETE", "/api/users"), 405),
    ):
        assert response.status_code == status
        assert response.json()["data"]["success"] is False
