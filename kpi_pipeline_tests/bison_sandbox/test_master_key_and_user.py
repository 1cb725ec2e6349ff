"""Where keys act under slow switches, a user who walks about, and keys that were mixed up."""

import time
from datetime import timedelta
from itertools import pairwise

import pytest

from bison_sandbox.world.keys import AgencyUser
from kpi_pipeline_tests.bison_sandbox.running import (
    TODAY,
    WORKSPACES,
    Bison,
    Stage,
    bison_on,
    options,
)

USERS = "/api/users"
UI_USER = "/sandbox/ui-user"


def ids(bison: Bison) -> list[int]:
    return [int(row["bison_workspace_id"]) for row in bison.clients()]


def here(bison: Bison) -> int:
    workspace_id: int = bison.data(USERS)["workspace"]["id"]
    return workspace_id


class HandClock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_a_switch_acts_when_its_seconds_have_passed() -> None:
    clock = HandClock()
    user = AgencyUser(1, clock)
    user.switch(2, seconds=3)
    clock.seconds += 2.9
    assert user.current_workspace_id == 1
    clock.seconds += 0.1
    assert user.current_workspace_id == 2


def test_the_last_of_several_switches_is_where_the_user_stays() -> None:
    clock = HandClock()
    user = AgencyUser(1, clock)
    user.switch(2, seconds=3)
    clock.seconds += 1
    user.switch(3, seconds=3)
    clock.seconds += 2
    assert user.current_workspace_id == 2
    clock.seconds += 1
    assert user.current_workspace_id == 3
    user.switch(4, seconds=3)
    user.switch(5)
    assert user.current_workspace_id == 5
    clock.seconds += 10
    assert user.current_workspace_id == 5


def test_the_user_never_arrives_in_a_workspace_that_went_meanwhile() -> None:
    clock = HandClock()
    user = AgencyUser(1, clock)
    user.switch(2, seconds=3)
    user.leave(2, instead=9)
    clock.seconds += 5
    assert user.current_workspace_id == 1
    user.leave(1, instead=9)
    assert user.current_workspace_id == 9


def test_a_slow_switch_is_answered_at_once_and_acts_later(bison: Bison) -> None:
    old, new = ids(bison)[:2]
    bison.switch(old)
    bison.variants(switch_seconds=2)
    begun = time.monotonic()
    assert bison.switch(new).status_code == 200
    assert time.monotonic() - begun < 2
    assert here(bison) == old
    while here(bison) == old:
        assert time.monotonic() - begun < 60, "the switch never acted"
    assert time.monotonic() - begun >= 2
    assert here(bison) == new


def test_the_user_may_switch_in_the_vendors_own_pages_at_once(bison: Bison) -> None:
    first, second, third = ids(bison)[:3]
    bison.switch(first)
    assert bison.http.get(UI_USER).json() == {"workspace_id": first}
    bison.variants(switch_seconds=60)
    assert bison.http.post(UI_USER, json={"workspace_id": second}).status_code == 200
    assert here(bison) == second
    bison.switch(third)
    assert here(bison) == bison.http.get(UI_USER).json()["workspace_id"] == second


@pytest.mark.parametrize(
    ("body", "status"), [({}, 422), ({"workspace_id": "14"}, 422), ({"workspace_id": 99_999}, 404)]
)
def test_the_user_can_switch_to_a_workspace_only(
    bison: Bison, body: dict[str, object], status: int
) -> None:
    assert bison.http.post(UI_USER, json=body).status_code == status


def test_a_fault_moves_the_user_just_before_a_call_is_answered(bison: Bison) -> None:
    old, new = ids(bison)[:2]
    bison.switch(old)
    bison.fault("move_user", to=new, after=1, times=1)
    assert [here(bison) for _ in range(3)] == [old, new, new]


def test_a_fault_moves_the_user_right_after_a_call_is_answered(bison: Bison) -> None:
    old, new = ids(bison)[:2]
    bison.switch(old)
    bison.fault("move_user", to=new, when="after", times=1)
    assert [here(bison) for _ in range(3)] == [old, new, new]
    shown = [(call["fault"], call["workspace_id"]) for call in bison.calls()[1:]]
    assert shown == [("move_user", old), (None, new), (None, new)]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_user_who_is_to_move_to_a_workspace_that_went_is_a_500(bison: Bison, when: str) -> None:
    gone = ids(bison)[5]
    bison.fault("move_user", to=gone, when=when)
    bison.http.delete(f"/sandbox/workspaces/{gone}")
    answer = bison.get(USERS)
    assert answer.status_code == 500
    assert str(gone) in answer.json()["data"]["message"]


def test_a_restless_user_walks_about_before_calls_with_the_master_key(bison: Bison) -> None:
    own = bison.with_key()[0]
    assert len({here(bison) for _ in range(10)}) == 1
    bison.variants(restless_user=1)
    found = [here(bison) for _ in range(30)]
    assert all(one != next_one for one, next_one in pairwise(found))
    assert len(set(found)) > 10
    assert set(found) <= set(ids(bison))
    before = bison.http.get(UI_USER).json()
    for _ in range(5):
        team = bison.data(USERS, key=own["api_key"])["workspace"]
        assert team["id"] == int(own["bison_workspace_id"])
    assert bison.http.get(UI_USER).json() == before


def test_a_restless_user_walks_as_often_as_the_chance_has_it_and_by_the_seed(
    stage: Stage,
) -> None:
    walks = []
    for _ in range(2):
        with bison_on(stage, options()) as bison:
            bison.variants(restless_user=0.3)
            walks.append([here(bison) for _ in range(100)])
    assert walks[0] == walks[1]
    moves = sum(one != next_one for one, next_one in pairwise(walks[0]))
    assert 15 <= moves <= 45


def test_a_restless_user_stays_where_there_is_no_other_place(stage: Stage) -> None:
    with bison_on(stage, options(clients=1)) as bison:
        bison.variants(restless_user=1)
        assert [here(bison)] == ids(bison)


def test_a_key_that_was_copied_from_another_client_acts_there(bison: Bison) -> None:
    mine, other = bison.with_key()[:2]
    workspace_id, to = int(mine["bison_workspace_id"]), int(other["bison_workspace_id"])
    days = TODAY - timedelta(days=20), TODAY
    own, others = (bison.series(*days, key=row["api_key"]) for row in (mine, other))
    assert own != others

    body = {"workspace_id": workspace_id, "to": to}
    assert bison.http.post("/sandbox/keys/move", json=body).json() == body
    assert bison.data(USERS, key=mine["api_key"])["workspace"]["id"] == to
    assert bison.series(*days, key=mine["api_key"]) == others
    assert bison.with_key()[0] == mine

    body = {"workspace_id": workspace_id, "to": workspace_id}
    assert bison.http.post("/sandbox/keys/move", json=body).status_code == 200
    assert bison.series(*days, key=mine["api_key"]) == own


def test_only_a_key_that_is_noted_down_can_be_mixed_up(bison: Bison) -> None:
    without = next(row for row in bison.clients() if not row["api_key"])
    workspace_id, to = int(without["bison_workspace_id"]), ids(bison)[0]
    for body, status in (
        ({"workspace_id": workspace_id, "to": to}, 422),
        ({"workspace_id": 99_999, "to": to}, 404),
        ({"workspace_id": to, "to": 99_999}, 404),
        ({"workspace_id": to}, 422),
    ):
        assert bison.http.post("/sandbox/keys/move", json=body).status_code == status


def test_slow_switches_and_moves_leave_the_list_of_workspaces_alone(bison: Bison) -> None:
    rows = bison.data(WORKSPACES)
    bison.variants(switch_seconds=60, restless_user=1)
    assert bison.data(WORKSPACES) == rows
