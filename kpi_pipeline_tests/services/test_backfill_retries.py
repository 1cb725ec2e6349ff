"""The runs of a backfill, and the wait for those that retry what failed."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus

from kpi_pipeline.orchestration.partitions import add_workspaces, block_tags
from kpi_pipeline.orchestration.runs import RETRY_OF
from kpi_pipeline.services.backfills import all_runs, launched_runs, wait_for_retries
from kpi_pipeline_tests.orchestration.installation import temporary_instance
from kpi_pipeline_tests.services.invented_backfills import FIRST, LAST, Clock, launched_run

GRID = ["heron", "lark", "otter"]


@pytest.fixture(scope="module")
def instance() -> Iterator[DagsterInstance]:
    with temporary_instance() as opened:
        add_workspaces(opened, GRID)
        yield opened


def _from_now() -> Clock:
    # Dagster itself records when a run failed.
    return Clock(datetime.now(UTC))


@pytest.fixture
def backfill_id() -> str:
    return uuid.uuid4().hex[:8]


def _failed(instance: DagsterInstance, backfill_id: str, *workspaces: str) -> DagsterRun:
    tags = block_tags(workspaces, [FIRST, LAST]) | {"dagster/backfill": backfill_id}
    run = launched_run(instance, tags)
    instance.report_run_failed(run)
    return run


def test_the_runs_of_a_backfill_are_its_own_and_those_that_retry_what_failed(
    instance: DagsterInstance, backfill_id: str
) -> None:
    own = _failed(instance, backfill_id, *GRID)
    again = launched_run(instance, {RETRY_OF: own.run_id})
    _failed(instance, "another", *GRID)
    launched_run(instance, {RETRY_OF: "another-run"})

    assert launched_runs(instance, backfill_id) == [own.run_id]
    assert all_runs(instance, backfill_id) == [own.run_id, again.run_id]
    assert all_runs(instance, "no-backfill") == []


def test_there_is_nothing_to_wait_for_where_no_run_failed(
    instance: DagsterInstance, backfill_id: str
) -> None:
    tags = block_tags(GRID, [FIRST]) | {"dagster/backfill": backfill_id}
    launched_run(instance, tags, DagsterRunStatus.SUCCESS)
    waiting = _from_now()
    assert wait_for_retries(instance, backfill_id, waiting.now, waiting.sleep)
    assert waiting.slept() == 0


def test_a_failed_run_over_one_client_is_not_retried(
    instance: DagsterInstance, backfill_id: str
) -> None:
    _failed(instance, backfill_id, "lark")
    waiting = _from_now()
    assert wait_for_retries(instance, backfill_id, waiting.now, waiting.sleep)
    assert waiting.slept() == 0


def test_a_retry_that_does_not_start_is_waited_for_less_than_a_minute(
    instance: DagsterInstance, backfill_id: str
) -> None:
    _failed(instance, backfill_id, *GRID)
    waiting = _from_now()
    assert wait_for_retries(instance, backfill_id, waiting.now, waiting.sleep)
    assert 40 <= waiting.slept() < 60


def test_a_failure_of_long_ago_is_not_waited_for(
    instance: DagsterInstance, backfill_id: str
) -> None:
    _failed(instance, backfill_id, *GRID)
    waiting = _from_now()
    waiting.sleep(3600)
    assert wait_for_retries(instance, backfill_id, waiting.now, waiting.sleep)
    assert waiting.slept() == 3600


def test_a_dagster_that_was_started_late_gets_the_time_to_start_them(
    instance: DagsterInstance, backfill_id: str
) -> None:
    _failed(instance, backfill_id, *GRID)
    waiting = _from_now()
    waiting.sleep(3600)
    started = waiting.now()
    assert wait_for_retries(instance, backfill_id, waiting.now, waiting.sleep, sensor_since=started)
    assert 3640 <= waiting.slept() < 3660


def test_retries_are_waited_for_until_they_have_ended(
    instance: DagsterInstance, backfill_id: str
) -> None:
    own = _failed(instance, backfill_id, *GRID)
    queued = launched_run(instance, {RETRY_OF: own.run_id}, DagsterRunStatus.QUEUED)
    waiting = _from_now()

    def end() -> None:
        if waiting.slept() == 100:
            instance.report_run_failed(queued)

    waiting.then = end
    assert wait_for_retries(instance, backfill_id, waiting.now, waiting.sleep)
    assert waiting.slept() == 100


def test_retries_are_waited_for_five_minutes_at_most(
    instance: DagsterInstance, backfill_id: str
) -> None:
    own = _failed(instance, backfill_id, *GRID)
    launched_run(instance, {RETRY_OF: own.run_id})
    waiting = _from_now()
    assert not wait_for_retries(instance, backfill_id, waiting.now, waiting.sleep)
    assert waiting.slept() == 300
