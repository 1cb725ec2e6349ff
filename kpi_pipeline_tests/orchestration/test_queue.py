"""Which runs the queue starts first, and what becomes of runs that a person cancels."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import should_retry
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import (
    QueuedRunCoordinatorDaemon,
)
from sqlalchemy import URL

from kpi_pipeline.orchestration import runs
from kpi_pipeline_tests.orchestration.old_runs import dagster_in
from kpi_pipeline_tests.services.invented_backfills import launched_run

OF_BACKFILL = {runs.BACKFILL: "a-year", runs.PRIORITY: runs.BACKFILL_PRIORITY}


@pytest.fixture
def own(dagster_database: URL, tmp_path: Path) -> Iterator[DagsterInstance]:
    """Dagster as dagster.yaml configures it."""
    with dagster_in(dagster_database, tmp_path) as instance:
        yield instance


def queued(instance: DagsterInstance, priority: str | None = None, **tags: str) -> str:
    named = {runs.PRIORITY: priority} if priority else {}
    return launched_run(instance, {**named, **tags}, DagsterRunStatus.QUEUED).run_id


def next_runs(instance: DagsterInstance) -> list[str]:
    """What the daemon starts next."""
    daemon = QueuedRunCoordinatorDaemon(interval_seconds=1, page_size=4)
    config = instance.get_concurrency_config()
    found = daemon._get_runs_to_dequeue(instance, config, fixed_iteration_time=None)
    return [run.run_id for run in found]


def test_syncs_and_checks_start_before_the_runs_of_a_backfill_that_were_queued_earlier(
    own: DagsterInstance,
) -> None:
    of_backfill = [queued(own, **OF_BACKFILL) for _ in range(10)]
    by_hand = queued(own)
    retry = queued(own, runs.RETRY_PRIORITY)
    checks = queued(own, runs.CHECKS_PRIORITY)
    sync = queued(own, runs.SYNC_PRIORITY)
    events = queued(own, runs.EVENTS_PRIORITY)

    first = next_runs(own)
    assert first == [events, sync, checks, retry, by_hand]

    for run_id in first:
        own.delete_run(run_id)
    assert next_runs(own) == of_backfill[:3]


def test_runs_that_wait_for_the_nightly_sync_leave_it_slots(own: DagsterInstance) -> None:
    waiting = [
        queued(own, runs.CHECKS_PRIORITY, **{runs.AFTER_SYNC_OF: f"tick {n}"}) for n in range(5)
    ]
    assert next_runs(own) == waiting[:2]
    sync = queued(own, runs.SYNC_PRIORITY)
    assert next_runs(own) == [sync, *waiting[:2]]


def test_a_long_backfill_leaves_slots_to_the_others(own: DagsterInstance) -> None:
    for _ in range(3):
        launched_run(own, OF_BACKFILL)
    queued(own, **OF_BACKFILL)

    assert next_runs(own) == []

    checks = queued(own, runs.CHECKS_PRIORITY)
    by_hand = queued(own)
    assert next_runs(own) == [checks, by_hand]


def fail(instance: DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRun:
    """The run's process dies, as its code server reports it."""
    data = JobFailureData(error=None, failure_reason=RunFailureReason.UNKNOWN)
    instance.report_run_failed(run, job_failure_data=data)
    failed = instance.get_run_by_id(run.run_id)
    assert failed is not None
    assert failed.status is DagsterRunStatus.FAILURE
    return failed


def test_a_run_whose_process_dies_is_restarted_unless_a_person_has_canceled_it(
    own: DagsterInstance,
) -> None:
    died, canceled = launched_run(own, {}), launched_run(own, {})
    own.report_run_canceling(canceled, message="Sending run termination request.")

    died, canceled = fail(own, died), fail(own, canceled)

    assert should_retry(died, own)
    assert not should_retry(canceled, own)
    assert not runs.is_canceled(died)
    assert runs.is_canceled(canceled)


def test_a_run_that_is_marked_as_canceled_and_fails_later_stays_canceled(
    own: DagsterInstance,
) -> None:
    run = launched_run(own, {})
    own.report_run_canceled(run)

    failed = fail(own, run)

    assert runs.is_canceled(failed)
    assert not should_retry(failed, own)


def test_a_run_that_took_too_long_was_canceled_by_no_person(own: DagsterInstance) -> None:
    run = launched_run(own, {})
    own.report_run_canceling(run, message="Canceling due to exceeding maximum runtime of 7 s.")

    assert not runs.is_canceled(fail(own, run))


def test_a_person_may_start_a_canceled_run_again_and_that_run_is_retried(
    own: DagsterInstance,
) -> None:
    run = launched_run(own, {})
    own.report_run_canceling(run, message="Sending run termination request.")
    failed = fail(own, run)

    again = fail(own, launched_run(own, failed.tags))

    assert not runs.is_canceled(again)
    assert should_retry(again, own)
