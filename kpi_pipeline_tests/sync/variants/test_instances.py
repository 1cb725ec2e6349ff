"""Two instances whose workspaces have the same ids: no numbers come from the wrong one."""

import socket
from collections.abc import Collection, Iterator
from dataclasses import replace

import pytest

from kpi_pipeline.app import AppContext
from kpi_pipeline.instances import InstanceSetting
from kpi_pipeline_tests.agency import Agency, errors, of_clients, open_agency
from kpi_pipeline_tests.bison_sandbox.running import Stage, bison_on, on_stage, options
from kpi_pipeline_tests.conftest import instance_of
from kpi_pipeline_tests.sync.variants.cases import (
    DATES,
    GIVE_A_KEY,
    GIVE_A_MASTER_KEY,
    IS_IT_UP,
    LATER,
    assert_no_secret,
    assert_right,
    right_rows,
    stored,
    three_clients,
)

_FIRST_ID = 500


class Pair:
    """Clients of two instances in one installation, with numbers of an hour ago."""

    def __init__(self, main: Agency, second: Agency) -> None:
        self.main, self.second = main.moved_to(LATER), second.moved_to(LATER)
        self.instances = main.app.settings.bison_instances
        self.of_main, self.of_second = three_clients(main), three_clients(second)
        self.before = stored(main)

    def swapped(self) -> tuple[InstanceSetting, InstanceSetting]:
        """The instances, each under the other's name."""
        main, second = self.instances
        return replace(second, name=main.name), replace(main, name=second.name)

    def errors(self, *instances: InstanceSetting) -> dict[str, str]:
        """The errors of a sync of all clients, with these in the settings' place."""
        agency = self.main.with_settings(bison_instances=instances or self.instances)
        failed = errors(agency.sync(DATES, self.of_main + self.of_second))
        for slug, error in failed.items():
            assert error.startswith(f"{slug}: ")
            assert_no_secret(self.main, error)
            assert_no_secret(self.second, error)
        return failed

    def assert_untouched(self, clients: Collection[str]) -> None:
        assert of_clients(stored(self.main), clients) == of_clients(self.before, clients)

    def assert_right(self, agency: Agency, clients: list[str]) -> None:
        assert_right(agency, right_rows(agency, clients), clients)


@pytest.fixture(scope="module")
def second_stage() -> Iterator[Stage]:
    with on_stage() as running:
        yield running


@pytest.fixture
def pair(app: AppContext, stage: Stage, second_stage: Stage) -> Iterator[Pair]:
    with (
        bison_on(stage, options(first_workspace_id=_FIRST_ID)) as here,
        bison_on(second_stage, options(first_workspace_id=_FIRST_ID, seed=8)) as there,
    ):
        instances = (instance_of(here), replace(instance_of(there), name="second"))
        settings = app.settings.model_copy(update={"bison_instances": instances})
        app = replace(app, settings=settings)
        main = open_agency(app, here)
        second = open_agency(app, there, instance="second")
        clients = [*three_clients(main), *three_clients(second)]
        main.synced(DATES, clients)
        yield Pair(main, second)


def test_clients_with_the_same_id_on_two_instances_have_each_their_own_numbers(
    pair: Pair,
) -> None:
    assert sorted(pair.main.ids.values()) == sorted(pair.second.ids.values())

    assert pair.errors() == {}

    pair.assert_right(pair.main, pair.of_main)
    pair.assert_right(pair.second, pair.of_second)


def test_an_instance_that_refuses_connections_stops_its_own_clients_alone(pair: Pair) -> None:
    main, second = pair.instances
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody_listens.getsockname()[1]}"

        failed = pair.errors(main, replace(second, url=url))

    assert failed.keys() == set(pair.of_second)
    for error in failed.values():
        assert "got no answer at try 2 of 2: ConnectError" in error
        assert IS_IT_UP in error
    pair.assert_untouched(pair.of_second)
    pair.assert_right(pair.main, pair.of_main)


def test_an_instance_that_answers_503_stops_its_own_clients_alone(pair: Pair) -> None:
    pair.main.bison.fault("status", status=503, html=True)

    failed = pair.errors()

    assert failed.keys() == set(pair.of_main)
    for error in failed.values():
        assert "answered 503 at try 2 of 2" in error
        assert IS_IT_UP in error
    pair.assert_untouched(pair.of_main)
    pair.assert_right(pair.second, pair.of_second)


@pytest.mark.waits
def test_an_instance_that_asks_to_wait_holds_back_its_own_clients_alone(pair: Pair) -> None:
    pair.second.bison.fault("status", status=429, retry_after=1)

    failed = pair.errors()

    assert failed.keys() == set(pair.of_second)
    assert all("answered 429 (Too Many Attempts) at try 2 of 2" in it for it in failed.values())
    pair.assert_untouched(pair.of_second)
    pair.assert_right(pair.main, pair.of_main)


def test_addresses_that_were_swapped_reject_every_key_and_change_nothing(pair: Pair) -> None:
    main, second = pair.instances

    failed = pair.errors(replace(main, url=second.url), replace(second, url=main.url))

    assert failed.keys() == {*pair.of_main, *pair.of_second}
    for slug, error in failed.items():
        keyless = slug in pair.main.keyless + pair.second.keyless
        assert "answered 401 (Unauthenticated)" in error
        assert (GIVE_A_MASTER_KEY if keyless else GIVE_A_KEY) in error
    pair.assert_untouched(failed)


def test_names_that_were_swapped_reject_the_key_of_every_client_that_has_one(pair: Pair) -> None:
    failed = pair.errors(*pair.swapped())

    with_a_key = {*pair.main.keyed, *pair.second.keyed} & {*pair.of_main, *pair.of_second}
    assert failed.keys() >= with_a_key
    for slug in with_a_key:
        assert "answered 401 (Unauthenticated)" in failed[slug]
        assert GIVE_A_KEY in failed[slug]
    pair.assert_untouched(with_a_key)
