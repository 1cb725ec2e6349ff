"""What a failed run over several clients left undone is retried, once."""

from collections.abc import Sequence

import dagster as dg
import pytest
from dagster import DagsterInstance
from sqlalchemy import text

from kpi_pipeline.orchestration.partitions import WORKSPACE, block_from_tags, block_tags
from kpi_pipeline.orchestration.runs import RETRY_OF
from kpi_pipeline_tests.agency import ASSETS
from kpi_pipeline_tests.orchestration.installation import Installation, cells

pytestmark = pytest.mark.runs


def evaluate(
    installation: Installation, cursor: str | None = None
) -> tuple[list[dg.RunRequest], str | None]:
    """One evaluation of the sensor; its requests, and its cursor."""
    sensor = installation.definitions.resolve_sensor_def("retry_failed_clients")
    with dg.build_sensor_context(
        instance=installation.instance,
        cursor=cursor,
        resources=installation.definitions.resources or {},
    ) as context:
        result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    return list(result.run_requests or []), result.cursor


def retried(installation: Installation, requests: Sequence[dg.RunRequest]) -> list[list[str]]:
    """The clients of each request, in the order of the grid."""
    order = installation.instance.get_dynamic_partitions(WORKSPACE)
    ranges = [block_from_tags(request.tags, order) for request in requests]
    return [list(found.workspaces) for found in ranges if found is not None]


def fail_two(installation: Installation) -> tuple[str, str]:
    first, second = installation.agency.keyed[2], installation.agency.keyed[5]
    installation.agency.revoke(first)
    installation.agency.delete(second)
    return first, second


def test_each_failed_client_is_retried_alone_and_a_healthy_one_is_not(
    installation: Installation,
) -> None:
    bad = fail_two(installation)
    dates = installation.days_ago(2, 1)
    failed = installation.run(block_tags(installation.workspaces, dates))
    assert not failed.success

    requests, _ = evaluate(installation)

    assert retried(installation, requests) == [[slug] for slug in bad]
    for request in requests:
        assert request.tags[RETRY_OF] == failed.run_id
        assert {key.to_user_string() for key in request.asset_selection or ()} == set(ASSETS)
        found = block_from_tags(request.tags, installation.workspaces)
        assert found is not None
        assert list(found.dates) == dates


@pytest.mark.long
def test_only_the_assets_of_the_failed_run_are_retried(installation: Installation) -> None:
    bad = fail_two(installation)
    tags = block_tags(installation.workspaces, installation.days_ago(1))
    installation.run(tags, assets=["raw_bison_stats"])

    requests, _ = evaluate(installation)

    assert retried(installation, requests) == [[slug] for slug in bad]
    selected = {key.to_user_string() for it in requests for key in it.asset_selection or ()}
    assert selected == {"raw_bison_stats"}


def test_a_retry_is_not_retried_whatever_fails(installation: Installation) -> None:
    fail_two(installation)
    installation.run(block_tags(installation.workspaces, installation.days_ago(1)))
    requests, cursor = evaluate(installation)
    assert len(requests) == 2
    for request in requests:
        assert not installation.run(request.tags).success

    again, cursor = evaluate(installation, cursor)
    assert again == []
    assert evaluate(installation, cursor)[0] == []


@pytest.mark.long
def test_a_run_is_retried_once_however_often_the_sensor_is_evaluated(
    installation: Installation,
) -> None:
    fail_two(installation)
    installation.run(block_tags(installation.workspaces, installation.days_ago(1)))

    first, cursor = evaluate(installation)
    # An interrupted evaluation is repeated from the old cursor: the run keys are the same.
    repeated, _ = evaluate(installation)
    later, _ = evaluate(installation, cursor)

    assert [it.run_key for it in repeated] == [it.run_key for it in first]
    assert len({it.run_key for it in first}) == 2
    assert later == []


@pytest.mark.long
def test_clients_that_were_never_reached_are_retried_as_blocks(
    installation: Installation,
) -> None:
    (bad, _) = fail_two(installation)
    failed = installation.run(block_tags(installation.workspaces, installation.days_ago(1)))
    lost = [*installation.workspaces[:4], *installation.workspaces[20:]]
    with installation.agency.app.engine.begin() as connection:
        connection.execute(
            text("DELETE FROM sync_log WHERE run_id = :run AND workspace = ANY(:lost)"),
            {"run": failed.run_id, "lost": lost},
        )

    requests, _ = evaluate(installation)

    groups = retried(installation, requests)
    alone = [group for group in groups if len(group) == 1]
    assert [installation.workspaces[:4], installation.workspaces[20:]] == [
        group for group in groups if len(group) > 1
    ]
    assert all(slug not in lost for (slug,) in alone)
    if bad not in lost:
        assert [bad] in alone


def test_many_clients_that_fail_together_are_retried_as_a_block(
    installation: Installation,
) -> None:
    for slug in installation.workspaces:
        installation.agency.delete(slug)
    installation.run(block_tags(installation.workspaces, installation.days_ago(1)))

    requests, _ = evaluate(installation)

    assert retried(installation, requests) == [installation.workspaces]


def test_a_run_over_one_client_that_fails_is_final(installation: Installation) -> None:
    (bad, _) = fail_two(installation)
    installation.run(block_tags([bad], installation.days_ago(1)))
    installation.run(partition=next(iter(cells([bad], installation.days_ago(1)))))

    assert evaluate(installation)[0] == []


def test_a_run_that_dagster_itself_retries_is_left_to_dagster(
    installation: Installation,
) -> None:
    fail_two(installation)
    tags = block_tags(installation.workspaces, installation.days_ago(1))
    installation.run({**tags, "dagster/will_retry": "true"})

    assert evaluate(installation)[0] == []


@pytest.mark.long
def test_a_run_whose_first_workspace_is_no_partition_anymore_is_not_retried(
    installation: Installation,
) -> None:
    fail_two(installation)
    installation.run(block_tags(installation.workspaces, installation.days_ago(1)))
    instance: DagsterInstance = installation.instance
    instance.delete_dynamic_partition(WORKSPACE, installation.workspaces[0])

    requests, cursor = evaluate(installation)

    assert requests == []
    assert cursor is not None, "it is looked at once"


def test_without_a_failed_run_nothing_is_retried(installation: Installation) -> None:
    assert installation.run(
        block_tags(installation.workspaces[:2], installation.days_ago(1))
    ).success
    assert evaluate(installation) == ([], None)
