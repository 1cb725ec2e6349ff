"""The partitions of an inactive client stay while a run or a backfill needs them."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.definitions.partitions.context import partition_loading_context

from kpi_pipeline.orchestration.partitions import (
    WORKSPACE,
    add_workspaces,
    block_from_tags,
    block_tags,
    remove_workspaces,
    workspace_partitions,
)
from kpi_pipeline.orchestration.runs import FINISHED, NOT_FINISHED
from kpi_pipeline_tests.orchestration.installation import temporary_instance
from kpi_pipeline_tests.orchestration.old_backfills import add_backfill
from kpi_pipeline_tests.services.invented_backfills import launched_run

DAYS = [date(2026, 3, 1), date(2026, 3, 2)]
GRID = ["acorn", "birch", "cedar", "doum", "elder"]


@pytest.fixture(scope="module")
def _kept() -> Iterator[DagsterInstance]:
    with temporary_instance() as opened:
        yield opened


@pytest.fixture
def own(_kept: DagsterInstance) -> DagsterInstance:
    """A Dagster with five clients, and no runs or backfills."""
    _kept.wipe()
    for key in _kept.get_dynamic_partitions(WORKSPACE):
        _kept.delete_dynamic_partition(WORKSPACE, key)
    add_workspaces(_kept, GRID)
    return _kept


def leave(instance: DagsterInstance, *gone: str) -> list[str]:
    """Deactivate clients; return the workspaces that the grid still has of them."""
    kept = remove_workspaces(instance, gone, datetime.now(UTC))
    still = [it for it in instance.get_dynamic_partitions(WORKSPACE) if it in gone]
    assert sorted(still) == kept
    return still


@pytest.mark.parametrize("status", NOT_FINISHED, ids=lambda it: it.value)
def test_a_run_that_has_not_ended_keeps_each_client_of_its_range(
    own: DagsterInstance, status: DagsterRunStatus
) -> None:
    run = launched_run(own, block_tags(["birch", "cedar", "doum"], DAYS), status)

    assert leave(own, *GRID) == ["birch", "cedar", "doum"]

    own.delete_run(run.run_id)
    assert leave(own, "birch", "cedar", "doum") == []


@pytest.mark.parametrize(
    "tags",
    [
        {"dagster/partition": "2026-03-01|cedar"},
        {"dagster/partition/date": "2026-03-01", "dagster/partition/workspace": "cedar"},
    ],
    ids=["one tag", "a tag for each dimension"],
)
def test_a_run_over_one_partition_keeps_its_client(
    own: DagsterInstance, tags: dict[str, str]
) -> None:
    launched_run(own, tags, DagsterRunStatus.QUEUED)

    assert leave(own, "birch", "cedar") == ["cedar"]


def test_runs_of_other_kinds_keep_no_client(own: DagsterInstance) -> None:
    launched_run(own, {"dagster/partition": "monday"}, DagsterRunStatus.QUEUED)

    assert leave(own, "birch") == []


@pytest.mark.parametrize("status", FINISHED, ids=lambda it: it.value)
def test_only_a_run_that_failed_keeps_the_ends_of_its_range_for_a_day(
    own: DagsterInstance, status: DagsterRunStatus
) -> None:
    launched_run(own, block_tags(["birch", "cedar", "doum"], DAYS), status)
    failed = status is DagsterRunStatus.FAILURE

    assert leave(own, "birch", "cedar", "doum") == (["birch", "doum"] if failed else [])

    tomorrow = datetime.now(UTC) + timedelta(days=1, minutes=1)
    assert remove_workspaces(own, ["birch", "doum"], tomorrow) == []


@pytest.mark.parametrize("status", ["REQUESTED", "CANCELING", "FAILING"])
def test_a_backfill_that_has_not_ended_keeps_its_clients(own: DagsterInstance, status: str) -> None:
    add_backfill(own, status, [f"{day}|{slug}" for day in DAYS for slug in ("birch", "doum")])

    assert leave(own, "birch", "cedar", "doum") == ["birch", "doum"]


@pytest.mark.parametrize("status", ["COMPLETED_SUCCESS", "COMPLETED_FAILED", "CANCELED", "FAILED"])
def test_a_backfill_that_has_ended_keeps_no_client(own: DagsterInstance, status: str) -> None:
    add_backfill(own, status, ["2026-03-01|birch"])

    assert leave(own, "birch") == []


def test_the_ranges_of_queued_runs_mean_the_same_clients_while_others_come_and_go(
    own: DagsterInstance,
) -> None:
    tags = block_tags(["birch", "cedar", "doum"], DAYS)
    launched_run(own, tags, DagsterRunStatus.QUEUED)

    leave(own, "acorn", "cedar")
    add_workspaces(own, ["fir", "acorn"])

    order = own.get_dynamic_partitions(WORKSPACE)
    assert list(order) == ["birch", "cedar", "doum", "elder", "fir", "acorn"]
    block = block_from_tags(tags, order)
    assert block is not None
    assert list(block.workspaces) == ["birch", "cedar", "doum"]
    # And to Dagster, which reads the range when the run starts.
    with partition_loading_context(dynamic_partitions_store=own):
        keys = workspace_partitions.get_partition_keys_in_range(
            dg.PartitionKeyRange("birch", "doum")
        )
    assert list(keys) == ["birch", "cedar", "doum"]


def test_a_range_whose_first_client_left_and_came_back_is_no_block() -> None:
    tags = block_tags(["birch", "cedar"], DAYS)

    assert block_from_tags(tags, ["acorn", "cedar", "birch"]) is None
