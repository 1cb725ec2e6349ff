"""A year of ten clients, watched and cancelled while its run is under way."""

import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta

import pytest
from sqlalchemy import URL

from kpi_pipeline.db.tables import client_metrics
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.orchestration.runs import BACKFILL
from kpi_pipeline.services.backfills import BackfillStatus, read_status
from kpi_pipeline.sync.scope import KpiAsset
from kpi_pipeline_tests.end_to_end.running import RunningAgency, running_agency

pytestmark = [pytest.mark.long, pytest.mark.weekly, pytest.mark.timeout(900)]

_TERMINATE = "mutation ($run: String!) { terminateRun(runId: $run) { __typename } }"
_CANCEL = "mutation ($id: String!) { cancelPartitionBackfill(backfillId: $id) { __typename } }"
_GREEN = """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) {
    ... on AssetNode { partitionStats { numMaterialized numFailed } } } }"""
_PROMISED_SECONDS = 30
_AT_WORK = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")


@pytest.fixture(scope="module")
def agency(
    postgres: URL, administer: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningAgency]:
    """Ten clients and a slow Email Bison, which is asked for one of them after another."""
    with running_agency(
        postgres,
        administer,
        tmp_path_factory.mktemp("agency"),
        {"clients": 10, "calls-per-second": 0, "latency": 4},
        settings={"bison_concurrency": 1},
    ) as agency:
        yield agency


@pytest.fixture
def year(agency: RunningAgency) -> list[date]:
    """The last 365 closed days, with no row of them stored."""
    for asset in reversed(KpiAsset):
        agency.sql(f"TRUNCATE {asset.value}")
    return days_between(agency.today - timedelta(days=365), agency.today - timedelta(days=1))


def stored_clients(agency: RunningAgency) -> set[str]:
    return {workspace for workspace, _ in agency.rows(client_metrics)}


def test_a_run_over_a_year_of_ten_clients_stops_soon_and_shows_which_of_them_it_did(
    agency: RunningAgency, year: list[date]
) -> None:
    run = agency.page.launch(list(KpiAsset), block_tags(agency.workspaces, year))
    agency.poll(lambda: len(stored_clients(agency)) >= 2, "the rows of two clients")

    agency.page.query(_TERMINATE, {"run": run})
    asked = time.monotonic()
    agency.poll(lambda: not agency.runs(*_AT_WORK), "the end of the run", every=0.2)

    assert time.monotonic() - asked < _PROMISED_SECONDS
    assert [it.status for it in agency.runs() if it.id == run] == ["CANCELED"]
    done = stored_clients(agency)
    assert 2 <= len(done) < 10
    # A run that a person cancels leaves no partition red, and the client under way may be unlogged.
    answer = agency.page.query(_GREEN, {"key": {"path": [KpiAsset.METRICS]}})["assetNodeOrError"]
    assert answer["partitionStats"]["numFailed"] == 0
    assert (len(done) - 1) * 365 <= answer["partitionStats"]["numMaterialized"] <= len(done) * 365


def test_a_backfill_shows_its_progress_and_stops_soon_after_it_is_cancelled(
    agency: RunningAgency, year: list[date]
) -> None:
    backfill = agency.launch_backfill(dict.fromkeys(agency.workspaces, year))
    seen: list[BackfillStatus] = []

    def shows_progress() -> bool:
        seen.append(read_status(agency.page, backfill))
        return 0 < seen[-1].filled < seen[-1].targeted

    agency.poll(shows_progress, "partitions filled by a run that is under way")
    runs = [it for it in agency.runs() if it.tags.get(BACKFILL) == backfill]
    assert len(runs) == 3
    assert "SUCCESS" not in {it.status for it in runs}

    agency.page.query(_CANCEL, {"id": backfill})
    asked = time.monotonic()
    agency.poll(lambda: read_status(agency.page, backfill).ended, "its end", every=0.2)

    assert time.monotonic() - asked < _PROMISED_SECONDS
    assert agency.is_at_rest()
    status = read_status(agency.page, backfill)
    assert status.name == "CANCELED"
    assert status.left == 0
    # Three clients at most were under way.
    rows = len(agency.rows(client_metrics))
    assert rows - 3 * 365 <= status.filled <= rows < 10 * 365

    # Nothing is left locked: the same again does the rest.
    assert agency.backfill(dict.fromkeys(agency.workspaces, year[-30:])) == ["COMPLETED_SUCCESS"]
    wanted = {(workspace, day) for workspace in agency.workspaces for day in year[-30:]}
    assert agency.rows().keys() >= wanted
