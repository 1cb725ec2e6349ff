import re
from dataclasses import replace
from datetime import date, timedelta

import pytest

from bison_sandbox import SandboxError, SandboxOptions
from bison_sandbox.world.agency import Client, build_agency, client_names
from kpi_pipeline_tests.bison_sandbox.running import TODAY, WORKSPACES, Stage, bison_on, options


def agency(seed: int = 7, clients: int = 26) -> list[Client]:
    return build_agency(seed, clients, TODAY)


def slug(name: str) -> str:
    return re.sub(r"\W+", "-", name.strip().lower())


def test_the_names_hold_what_names_do_in_real_accounts() -> None:
    names = client_names(7, 26)
    assert sum(name != name.strip() for name in names) == 1
    assert any("'" in name for name in names)
    assert any(not name.isascii() for name in names)
    assert len({slug(name) for name in names}) == 25
    assert len(set(names)) == 26


@pytest.mark.parametrize("count", [1, 2, 7, 1_000, 5_000])
def test_any_number_of_clients_has_distinct_names_and_ids(count: int) -> None:
    clients = agency(clients=count)
    assert len({client.name for client in clients}) == count
    assert len({client.profile.workspace_id for client in clients}) == count


def test_the_ids_have_gaps() -> None:
    ids = [client.profile.workspace_id for client in agency()]
    assert ids == sorted(ids)
    assert ids[-1] - ids[0] > 26


def test_from_a_first_id_on_the_ids_have_no_gaps_and_the_agency_is_the_same() -> None:
    usual, numbered = agency(), build_agency(7, 26, TODAY, first_id=500)
    assert [client.profile.workspace_id for client in numbered] == list(range(500, 526))
    for one, other in zip(usual, numbered, strict=True):
        assert replace(one, profile=other.profile) == other
        profile = replace(one.profile, workspace_id=other.profile.workspace_id)
        assert vars(profile) == vars(other.profile)


def test_two_agencies_may_have_every_id_in_common(stage: Stage) -> None:
    rows = []
    for seed in (7, 8):
        with bison_on(stage, options(seed=seed, clients=5, first_workspace_id=3)) as bison:
            rows.append(bison.clients())
            assert [row["id"] for row in bison.data(WORKSPACES)] == [3, 4, 5, 6, 7]
            assert bison.http.post("/sandbox/workspaces", json={"name": "x"}).json()["id"] == 8
    assert [row["name"] for row in rows[0]] != [row["name"] for row in rows[1]]


@pytest.mark.parametrize(("clients", "keys"), [(26, 23), (1, 1), (10, 9), (100, 88)])
def test_most_clients_have_a_key_of_their_own(clients: int, keys: int) -> None:
    assert sum(client.has_own_key for client in agency(clients=clients)) == keys


@pytest.mark.parametrize("seed", [7, 8, 99])
def test_targets_are_those_of_a_real_agency(seed: int) -> None:
    targets = [client.monthly_kpi_target for client in agency(seed)]
    assert targets.count(None) == 1
    numbers = [target for target in targets if target is not None]
    assert all(50 <= target <= 300 for target in numbers)
    assert 1_450 <= sum(numbers) <= 2_150
    assert all(client.monthly_sending_target for client in agency(seed))


def test_a_few_clients_started_lately_and_the_rest_fifteen_months_ago() -> None:
    starts = [client.profile.start for client in agency()]
    assert starts.count(date(2024, 12, 1)) == 22
    assert all(start < TODAY for start in starts)


def test_on_any_day_one_client_has_been_quiet_for_more_than_a_week() -> None:
    profiles = [client.profile for client in agency()]
    for offset in range(40):
        days = [TODAY + timedelta(days=offset - back) for back in range(8)]
        assert any(all(profile.is_quiet_on(day) for day in days) for profile in profiles)


def test_another_seed_makes_another_agency() -> None:
    assert client_names(7, 26) != client_names(8, 26)


@pytest.mark.parametrize(
    "wrong",
    [
        {"clients": 0},
        {"port": 70_000},
        {"calls_per_second": -1.0},
        {"latency": -1.0},
        {"first_workspace_id": 0},
        {"first_workspace_id": 10**10},
    ],
)
def test_an_option_out_of_range_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(SandboxError, match="must be"):
        SandboxOptions(**wrong)  # type: ignore[arg-type]


def test_an_unknown_time_zone_is_refused_by_name() -> None:
    with pytest.raises(SandboxError, match="Mars/Olympus"):
        SandboxOptions(timezone="Mars/Olympus")
