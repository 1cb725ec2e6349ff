"""Runs of the real definitions are cleaned up, and the page shows what it showed before."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster_graphql.test.utils import execute_dagster_graphql
from sqlalchemy import URL

from kpi_pipeline.db.tables import client_metrics, sync_log
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline_tests.agency import ASSETS
from kpi_pipeline_tests.cli.running import rows_of
from kpi_pipeline_tests.orchestration.installation import Installation, cells
from kpi_pipeline_tests.orchestration.old_runs import OldRuns, dagster_in

pytestmark = pytest.mark.runs

REGISTRY = "client_registry"

# What the pages of an asset and of the catalogue ask for.
_PAGE = """
query ($key: AssetKeyInput!, $partitions: [String!]) {
  assetNodeOrError(assetKey: $key) { ... on AssetNode {
    partitionStats { numMaterialized numFailed numMaterializing numPartitions }
    assetPartitionStatuses { ... on MultiPartitionStatuses { ranges {
      primaryDimStartKey primaryDimEndKey secondaryDim { ... on DefaultPartitionStatuses {
        materializedPartitions failedPartitions materializingPartitions
      } }
    } } }
    latestMaterializationByPartition(partitions: $partitions) {
      partition runId timestamp runOrError { ... on Run { status } }
      metadataEntries { label ... on IntMetadataEntry { intValue } }
    }
  } }
  assetsLatestInfo(assetKeys: [$key]) {
    latestMaterialization { runId timestamp } latestRun { runId status }
  }
}
"""


@pytest.fixture
def installation(
    installation: Installation, dagster_database: URL, tmp_path: Path
) -> Iterator[Installation]:
    """26 clients today, with Dagster's tables in PostgreSQL."""
    with dagster_in(dagster_database, tmp_path) as instance:
        yield Installation(installation.agency, instance)


@pytest.fixture
def old(installation: Installation) -> OldRuns:
    return OldRuns(installation.instance)


def page(installation: Installation, partitions: set[str]) -> dict[str, Any]:
    """What Dagster's page shows of each asset; it is queried in this process."""
    origin = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(module_name="kpi_pipeline.definitions", attribute="defs")
    )
    shown = {}
    target = InProcessWorkspaceLoadTarget(origin)
    with WorkspaceProcessContext(installation.instance, target) as context:
        for asset in [REGISTRY, *ASSETS]:
            variables = {
                "key": {"path": [asset]},
                "partitions": None if asset == REGISTRY else sorted(partitions),
            }
            request = context.create_request_context()
            shown[asset] = execute_dagster_graphql(request, _PAGE, variables).data
    return shown


def grid(installation: Installation) -> dict[str, Any]:
    """Each asset's green partitions, its red ones, and the numbers of the green ones."""
    return {it: (*installation.partitions(it), installation.metadata(it)) for it in ASSETS}


def forget_statuses(installation: Installation) -> None:
    """Make Dagster compute each partition's status again, as a new version of it would."""
    installation.instance.wipe_asset_cached_status([dg.AssetKey(asset) for asset in ASSETS])


@pytest.mark.long
def test_the_page_the_grid_and_the_tables_are_as_they_were_and_superseded_runs_are_gone(
    installation: Installation, old: OldRuns
) -> None:
    agency, workspaces = installation.agency, installation.workspaces[:4]
    (rejected, *_) = [slug for slug in workspaces if agency.key(slug)]
    three, two, one = installation.days_ago(3, 2, 1)

    def run(workspaces: list[str], *days: date) -> str:
        return installation.run(block_tags(workspaces, days)).run_id

    first_registry = installation.run(assets=[REGISTRY]).run_id
    registry = installation.run(assets=[REGISTRY]).run_id
    superseded = run(workspaces[:2], three, two)
    in_part = run(workspaces, three, two)
    green = run(workspaces, two, one)
    agency.revoke(rejected)
    superseded_failure, failure = run(workspaces, one), run(workspaces, one)
    old.let_pass(91)
    all_cells = cells(workspaces, [three, two, one])
    for green_ones, red_ones, _ in grid(installation).values():
        assert (green_ones, red_ones) == (all_cells, cells([rejected], [one]))
    before = grid(installation), page(installation, all_cells)
    tables = rows_of(agency.app.engine, client_metrics, sync_log)

    report = old.clean_up()

    assert old.traces() == {registry, in_part, green, failure}, report
    assert not old.traces() & {first_registry, superseded, superseded_failure}
    assert (grid(installation), page(installation, all_cells)) == before
    forget_statuses(installation)
    assert (grid(installation), page(installation, all_cells)) == before
    assert rows_of(agency.app.engine, client_metrics, sync_log) == tables


def test_a_run_that_turned_partitions_red_stays_until_they_are_materialized(
    installation: Installation, old: OldRuns
) -> None:
    agency, (day,) = installation.agency, installation.days_ago(1)
    rejected, healthy = [slug for slug in installation.workspaces if agency.key(slug)][:2]
    red, green = cells([rejected], [day]), cells([healthy], [day])
    agency.revoke(rejected)
    failure = installation.run(partition=min(red))
    later = installation.run(partition=min(green))
    assert (failure.success, later.success) == (False, True)
    old.let_pass(400)

    old.clean_up()
    assert old.traces() == {failure.run_id, later.run_id}
    forget_statuses(installation)
    assert all(found[:2] == (green, red) for found in grid(installation).values())

    body = {"workspace_id": agency.ids[rejected]}
    agency.bison.http.post("/sandbox/keys/restore", json=body).raise_for_status()
    mended = installation.run(partition=min(red))
    assert mended.success
    before = grid(installation)
    old.clean_up()
    assert old.traces() == {mended.run_id, later.run_id}
    forget_statuses(installation)
    assert grid(installation) == before
    assert all(found[:2] == (green | red, set()) for found in before.values())


def test_the_partitions_of_a_client_that_left_are_there_when_it_returns(
    installation: Installation, old: OldRuns
) -> None:
    slug, (day,) = installation.workspaces[0], installation.days_ago(1)
    assert installation.run(partition=f"{day}|{slug}").success
    before = grid(installation)
    old.let_pass(400)
    installation.instance.delete_dynamic_partition("workspace", slug)

    old.clean_up()

    installation.instance.add_dynamic_partitions("workspace", [slug])
    forget_statuses(installation)
    assert grid(installation) == before
    assert all(found[0] == {f"{day}|{slug}"} for found in before.values())
