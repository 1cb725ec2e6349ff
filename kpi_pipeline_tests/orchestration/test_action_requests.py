"""What people ask for on the dashboard becomes one run each, and the request says how it ended."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.test_utils import create_run_for_test

from kpi_pipeline.db.dashboard.requests import (
    ActionRequest,
    Kind,
    Status,
    progress_of,
    read_request,
    request_run,
)
from kpi_pipeline.orchestration.automation.action_requests import evaluate_requests
from kpi_pipeline.orchestration.partitions import WORKSPACE, block_from_tags
from kpi_pipeline.orchestration.runs import (
    CANCELED,
    EVENTS_PRIORITY,
    PRIORITY,
    REQUEST,
    SYNC_PRIORITY,
    WILL_RETRY,
)
from kpi_pipeline_tests.orchestration.installation import Installation, cells

pytestmark = pytest.mark.runs
ASSETS = ("raw_bison_stats", "kpi_projections", "client_metrics")


def ask(
    installation: Installation,
    *workspaces: str,
    first: date | None = None,
    last: date | None = None,
) -> int:
    """Ask for these clients' yesterday and today, or for other days; return the request's id."""
    today = installation.today
    with installation.agency.app.engine.begin() as connection:
        request_id, _ = request_run(
            connection,
            Kind.REFRESH,
            workspaces,
            first or today - timedelta(days=1),
            last or today,
            requested_by="ada",
            now=installation.agency.app.now(),
        )
    return request_id


def tick(installation: Installation) -> list[dg.RunRequest]:
    """One evaluation of the sensor, as Dagster evaluates it."""
    sensor = installation.definitions.resolve_sensor_def("action_requests")
    resources = installation.definitions.resources or {}
    with dg.build_sensor_context(instance=installation.instance, resources=resources) as context:
        result = sensor(context)
    assert isinstance(result, list | dg.SkipReason)
    return result if isinstance(result, list) else []


def stored(installation: Installation, request_id: int) -> ActionRequest:
    with installation.agency.app.engine.connect() as connection:
        found = read_request(connection, request_id)
    assert found is not None
    return found


def launched(
    installation: Installation,
    request: dg.RunRequest,
    status: DagsterRunStatus = DagsterRunStatus.NOT_STARTED,
    **tags: str,
) -> dg.DagsterRun:
    """The run that the daemon makes of a request, which does nothing."""
    run = create_run_for_test(installation.instance, status=status, tags={**request.tags, **tags})
    assert isinstance(run, dg.DagsterRun)
    return run


def execute(installation: Installation, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    chosen = [key.to_user_string() for key in request.asset_selection or ()]
    return installation.run(request.tags, chosen, checks=False)


def test_a_refresh_of_two_clients_is_one_run_that_fetches_and_fills_their_rows(
    installation: Installation,
) -> None:
    first, second = installation.workspaces[:2]
    request_id = ask(installation, first, second)
    assert stored(installation, request_id).status is Status.WAITING

    (request,) = tick(installation)

    assert [key.to_user_string() for key in request.asset_selection or ()] == [*ASSETS]
    assert int(EVENTS_PRIORITY) > int(request.tags[PRIORITY]) > int(SYNC_PRIORITY)
    result = execute(installation, request)
    assert result.success
    yesterday = installation.today - timedelta(days=1)
    days = [yesterday, installation.today]
    assert set(installation.agency.rows()) == {(it, day) for it in (first, second) for day in days}
    for asset in ASSETS:
        assert installation.partitions(asset) == (cells([first, second], days), set())
    done = stored(installation, request_id)
    assert (done.status, done.run_id) == (Status.SUCCEEDED, result.run_id)
    assert done.message is not None
    assert done.message.startswith("2 clients fetched with ")
    assert done.ended_at is not None
    assert tick(installation) == []


def test_a_tick_that_is_repeated_requests_the_same_run_and_none_once_there_is_one(
    installation: Installation,
) -> None:
    request_id = ask(installation, installation.workspaces[0])
    (request,) = tick(installation)
    (again,) = tick(installation)
    assert request.run_key == again.run_key == f"request {request_id}"

    run = launched(installation, request)

    assert tick(installation) == []
    assert stored(installation, request_id).status is Status.STARTED
    assert stored(installation, request_id).run_id == run.run_id


def test_a_failed_run_ends_the_request_with_the_sentence_of_each_client(
    installation: Installation,
) -> None:
    bad, good = installation.agency.keyed[:2]
    installation.agency.revoke(bad)
    request_id = ask(installation, bad, good)
    (request,) = tick(installation)
    order = installation.instance.get_dynamic_partitions(WORKSPACE)
    block = block_from_tags(request.tags, order)
    assert block is not None

    assert not execute(installation, request).success

    failed = stored(installation, request_id)
    assert failed.status is Status.FAILED
    assert failed.message is not None
    assert failed.message.startswith(f"1 of 2 clients failed. {bad}: ")
    with installation.agency.app.engine.connect() as connection:
        (progress,) = progress_of(connection, [failed])
    assert set(progress.errors) == {bad}
    assert progress.done == len(block.workspaces)


ENDS: Mapping[str, tuple[DagsterRunStatus, dict[str, str], Status, str]] = {
    "canceled": (
        DagsterRunStatus.CANCELED,
        {},
        Status.CANCELED,
        "Somebody canceled its run in Dagster.",
    ),
    "its process died": (
        DagsterRunStatus.FAILURE,
        {},
        Status.FAILED,
        "The run ended after 0 of 1 client. Its page in Dagster says why.",
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_run_that_ended_without_a_word_ends_its_request(
    installation: Installation, end: str
) -> None:
    run_status, tags, status, message = ENDS[end]
    request_id = ask(installation, installation.workspaces[0])
    launched(installation, tick(installation)[0], run_status, **tags)

    assert tick(installation) == []

    ended = stored(installation, request_id)
    assert (ended.status, ended.message) == (status, message)


def test_a_run_that_dagster_restarts_goes_on_and_the_request_follows_the_new_one(
    installation: Installation,
) -> None:
    request_id = ask(installation, installation.workspaces[0])
    (request,) = tick(installation)
    died = launched(installation, request, DagsterRunStatus.FAILURE, **{WILL_RETRY: "true"})
    tick(installation)
    assert stored(installation, request_id).run_id == died.run_id
    assert stored(installation, request_id).is_open

    again = launched(installation, request, DagsterRunStatus.STARTED)
    tick(installation)

    assert stored(installation, request_id).run_id == again.run_id
    assert stored(installation, request_id).is_open


def test_a_run_of_a_canceled_request_that_inherits_the_tag_of_another_is_no_cancel(
    installation: Installation,
) -> None:
    request_id = ask(installation, installation.workspaces[0])
    (request,) = tick(installation)
    launched(installation, request, DagsterRunStatus.FAILURE, **{CANCELED: "another run"})
    tick(installation)
    assert stored(installation, request_id).status is Status.FAILED


def test_a_request_whose_run_is_lost_ends_and_can_be_made_again(
    installation: Installation,
) -> None:
    workspace = installation.workspaces[0]
    request_id = ask(installation, workspace)
    run = launched(installation, tick(installation)[0])
    tick(installation)
    installation.instance.delete_run(run.run_id)

    assert tick(installation) == []

    lost = stored(installation, request_id)
    assert lost.status is Status.FAILED
    assert lost.message is not None
    assert lost.message.startswith("Dagster no longer knows its run")
    assert ask(installation, workspace) != request_id


def deactivate(installation: Installation, workspace: str) -> None:
    installation.agency.sql(
        "UPDATE clients SET active = false WHERE workspace = :key", key=workspace
    )


def test_a_request_of_a_client_that_was_deactivated_meanwhile_ends_with_a_sentence(
    installation: Installation,
) -> None:
    gone, other = installation.workspaces[:2]
    alone, both = ask(installation, gone), ask(installation, gone, other)
    deactivate(installation, gone)

    (request,) = tick(installation)

    assert request.tags[REQUEST] == str(both)
    ended = stored(installation, alone)
    assert ended.status is Status.FAILED
    assert ended.message == f"{gone} is not active any more. Nothing was fetched."
    assert execute(installation, request).success
    message = stored(installation, both).message
    assert message is not None
    assert message.endswith(f"{gone} is not active any more.")


def test_a_client_without_a_partition_gets_one(installation: Installation) -> None:
    workspace = installation.workspaces[0]
    installation.instance.delete_dynamic_partition(WORKSPACE, workspace)
    ask(installation, workspace)

    (request,) = tick(installation)

    assert workspace in installation.instance.get_dynamic_partitions(WORKSPACE)
    assert execute(installation, request).success


def test_days_before_the_grid_are_left_out_and_without_others_the_request_says_so(
    installation: Installation,
) -> None:
    start = date(installation.today.year - 1, 1, 1)
    first, second = installation.workspaces[:2]
    ask(installation, first, first=start - timedelta(days=3), last=start)
    early = ask(installation, second, first=start - timedelta(days=3), last=start - timedelta(1))

    (request,) = tick(installation)

    order = installation.instance.get_dynamic_partitions(WORKSPACE)
    block = block_from_tags(request.tags, order)
    assert block is not None
    assert (block.workspaces, block.dates) == ([first], [start])
    message: Any = stored(installation, early).message
    assert message == f"These days are before {start}, the first date of the grid."


def test_an_evaluation_during_the_run_leaves_the_request_open(installation: Installation) -> None:
    request_id = ask(installation, installation.workspaces[0])
    launched(installation, tick(installation)[0], DagsterRunStatus.STARTED)
    assert evaluate_requests(installation.instance, installation.agency.app) == []
    assert stored(installation, request_id).is_open
