"""The master key acts in one workspace at a time; five clients once showed the same 162,179."""

import asyncio
import threading
from dataclasses import replace
from itertools import groupby

from starlette.types import ASGIApp, Receive, Scope, Send

from kpi_pipeline_tests.agency import (
    PLANS,
    SERIES,
    SWITCH,
    WHO_AM_I,
    Agency,
    differences,
    errors,
)
from kpi_pipeline_tests.bison_sandbox.running import TODAY, Stage
from kpi_pipeline_tests.conftest import instance_of


class Crowd:
    """Lets all calls through, each held open for a moment, and counts those of a key at once."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.most = 0
        self.total = 0
        self._under_way = 0
        self._app = app
        self._authorization = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if dict(scope.get("headers", ())).get(b"authorization") != self._authorization:
            await self._app(scope, receive, send)
            return
        self.total += 1
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        try:
            await asyncio.sleep(0.01)
            await self._app(scope, receive, send)
        finally:
            self._under_way -= 1


def test_the_master_key_serves_one_client_after_another_and_is_verified_before_and_after(
    agency: Agency,
) -> None:
    agency.synced([TODAY], [*agency.keyless, *agency.keyed[:5]])

    master = [call for call in agency.bison.calls() if call["key"] == "master"]
    slots = [
        (workspace_id, [call["path"] for call in calls])
        for workspace_id, calls in groupby(master, key=lambda call: call["workspace_id"])
    ]
    assert sorted(workspace_id for workspace_id, _ in slots) == sorted(
        agency.ids[slug] for slug in agency.keyless
    )
    reading = [SWITCH, WHO_AM_I, SERIES, PLANS, PLANS, WHO_AM_I]
    assert [paths for _, paths in slots] == [reading] * 3


def test_two_runs_at_once_never_have_two_calls_of_the_master_key_under_way(
    agency: Agency, stage: Stage
) -> None:
    crowd = Crowd(stage.app, agency.bison.master_key)
    stage.app = crowd
    failures: list[dict[str, str]] = []

    def sync(run_id: str) -> None:
        failures.append(errors(agency.sync([TODAY], agency.keyless, run_id=run_id)))

    runs = [threading.Thread(target=sync, args=(f"run {number}",)) for number in (1, 2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()

    assert failures == [{}, {}]
    assert crowd.most == 1
    assert crowd.total >= 2 * 3 * 6
    assert differences(agency.rows(), agency.expected([TODAY], agency.keyless)) == []


def test_a_keyless_client_whose_workspace_is_gone_does_not_stop_those_that_wait_behind_it(
    agency: Agency,
) -> None:
    gone, *others = agency.keyless
    agency.delete(gone)

    outcomes = agency.sync([TODAY], agency.keyless)

    assert errors(outcomes).keys() == {gone}
    assert {slug for slug, _ in agency.rows()} == set(others)


def test_a_keyless_client_without_a_master_key_gets_the_remedy(agency: Agency) -> None:
    agency = agency.with_settings(
        bison_instances=(replace(instance_of(agency.bison), master_key=None),)
    )

    outcomes = agency.sync([TODAY], [agency.keyless[0], agency.keyed[0]])

    (slug, error), *others = errors(outcomes).items()
    assert (slug, others) == (agency.keyless[0], [])
    assert "api_key" in error
    assert "KPI_BISON_INSTANCES" in error
    assert outcomes[slug].key_used is None
    assert outcomes[slug].api_calls == 0
