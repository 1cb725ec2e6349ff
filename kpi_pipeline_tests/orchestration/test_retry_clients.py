"""What a failed run over several clients left undone is retried, once."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster import DagsterEvent, DagsterEventType, DagsterInstance
from dagster._core.events import JobFailureData
from sqlalchemy import text

from kpi_pipeline.orchestration.partitions import WORKSPACE, block_from_tags, block_tags
from kpi_pipeline.orchestration.runs import BACKFILL, CANCELED, RETRY_OF
from kpi_pipeline_tests.agency import ASSETS
from kpi_pipeline_tests.orchestration.installation import Installation, cells
from kpi_pipeline_tests.orchestration.old_backfills import add_backfill
from kpi_pipeline_tests.services.invented_backfills import launched_run

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


def around(installation: Installation, *workspaces: str) -> list[str]:
    """The contiguous clients from the first of these to the last, and one beside each."""
    order = installation.workspaces
    places = sorted(order.index(it) for it in workspaces)
    return order[max(places[0] - 1, 0) : places[-1] + 2]


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
    failed = installation.run(block_tags(around(installation, *bad), dates))
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
    tags = block_tags(around(installation, *bad), installation.days_ago(1))
    installation.run(tags, assets=["raw_bison_stats"])

    requests, _ = evaluate(installation)

    assert retried(installation, requests) == [[slug] for slug in bad]
    selected = {key.to_user_string() for it in requests for key in it.asset_selection or ()}
    assert selected == {"raw_bison_stats"}


def test_a_retry_is_not_retried_whatever_fails(installation: Installation) -> None:
    bad = fail_two(installation)
    installation.run(block_tags(around(installation, *bad), installation.days_ago(1)))
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
    bad = fail_two(installation)
    installation.run(block_tags(around(installation, *bad), installation.days_ago(1)))

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
    bad = fail_two(installation)
    tags = block_tags(around(installation, *bad), installation.days_ago(1))
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
    assert cursor is not None, "it is handled once"


def failed_run(
    installation: Installation, minutes_ago: float = 0, tags: Mapping[str, str] | None = None
) -> str:
    """A run over the first three clients that reached none, and failed at this time."""
    instance = installation.instance
    block = block_tags(installation.workspaces[:3], installation.days_ago(1))
    run = launched_run(instance, {**block, **(tags or {})})
    event = DagsterEvent(
        event_type_value=DagsterEventType.RUN_FAILURE.value,
        job_name=run.job_name,
        event_specific_data=JobFailureData(error=None),
    )
    at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    instance.run_storage.handle_run_event(run.run_id, event, at)
    return run.run_id


def retry_of(requests: Sequence[dg.RunRequest]) -> list[str]:
    return [request.tags[RETRY_OF] for request in requests]


def test_a_failure_that_is_stored_late_is_retried_and_none_twice(
    installation: Installation,
) -> None:
    first = failed_run(installation, minutes_ago=2)
    requests, cursor = evaluate(installation)
    assert retry_of(requests) == [first]
    assert {it.tags["dagster/priority"] for it in requests} == {"5"}
    # Its end was before that of the first, and the database was unreachable.
    late = failed_run(installation, minutes_ago=9)

    requests, cursor = evaluate(installation, cursor)
    assert retry_of(requests) == [late]

    # A tag that is added later touches a run, and run keys of deleted runs are forgotten.
    installation.instance.add_run_tags(first, {"seen": "yes"})
    assert evaluate(installation, cursor)[0] == []


def test_a_run_that_dagster_gives_up_to_retry_is_retried(installation: Installation) -> None:
    run = failed_run(installation, tags={"dagster/will_retry": "true"})
    other = failed_run(installation)
    requests, cursor = evaluate(installation)
    assert retry_of(requests) == [other]

    installation.instance.add_run_tags(run, {"dagster/will_retry": "false"})

    requests, cursor = evaluate(installation, cursor)
    assert retry_of(requests) == [run]
    assert evaluate(installation, cursor)[0] == []


def test_the_cursor_of_an_earlier_version_is_read(installation: Installation) -> None:
    run = failed_run(installation)
    before = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()

    assert retry_of(evaluate(installation, before)[0]) == [run]


def test_what_a_person_canceled_is_not_retried(installation: Installation) -> None:
    instance = installation.instance
    # The run failed while it was being canceled: its storage has tagged it.
    run = failed_run(installation)
    instance.add_run_tags(run, {CANCELED: run})
    block = block_tags(installation.workspaces[:3], installation.days_ago(1))
    ended = launched_run(instance, block, dg.DagsterRunStatus.CANCELED)
    keys = cells(installation.workspaces, installation.days_ago(1))
    for state in ("CANCELING", "CANCELED"):
        failed_run(installation, tags={BACKFILL: add_backfill(instance, state, keys)})
    going_on = add_backfill(instance, "REQUESTED", keys)
    of_it = failed_run(installation, tags={BACKFILL: going_on})
    # It was canceled, and a person has started it again.
    again = failed_run(installation, tags={CANCELED: ended.run_id})

    assert retry_of(evaluate(installation)[0]) == [of_it, again]


def test_a_client_that_was_deactivated_is_not_retried(installation: Installation) -> None:
    failed_run(installation)
    first, gone, third = installation.workspaces[:3]
    statement = "UPDATE clients SET active = false WHERE workspace = :gone"
    installation.agency.sql(statement, gone=gone)

    requests, _ = evaluate(installation)

    assert retried(installation, requests) == [[first], [third]]


def test_without_a_failed_run_nothing_is_retried(installation: Installation) -> None:
    assert installation.run(
        block_tags(installation.workspaces[:2], installation.days_ago(1))
    ).success
    assert evaluate(installation) == ([], None)
