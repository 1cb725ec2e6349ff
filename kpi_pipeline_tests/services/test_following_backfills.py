"""A backfill is followed to its end: its status, its runs, and those that retry what failed."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._daemon.types import DaemonHeartbeat
from sqlalchemy.exc import OperationalError

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.sync_log import store_entry
from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration.partitions import block_tags, sync_workspace_partitions
from kpi_pipeline.orchestration.runs import RETRY_OF
from kpi_pipeline.services.backfills import (
    BackfillStatus,
    UnknownBackfillError,
    all_runs,
    launched_runs,
    wait_for_retries,
    watch_backfill,
)
from kpi_pipeline.services.dagster_page import PageSilentError
from kpi_pipeline.services.running_dagster import RunningDagster
from kpi_pipeline_tests.db.stocked import imported, record
from kpi_pipeline_tests.orchestration.installation import temporary_instance
from kpi_pipeline_tests.services.invented_backfills import (
    FIRST,
    LAST,
    LAUNCHED,
    NOT_FOUND,
    AnsweringPage,
    Clock,
    answer,
    entry,
    launched_run,
)

GRID = ["heron", "lark", "otter"]
SILENT = PageSilentError("Dagster's page does not answer.")
UNREACHABLE = OperationalError("SELECT 1", None, OSError("made up"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def instance() -> Iterator[DagsterInstance]:
    with temporary_instance() as opened:
        sync_workspace_partitions(opened, GRID)
        yield opened


@pytest.fixture
def watched(app: AppContext, clock: Clock) -> AppContext:
    """The installation at the test's own time."""
    return AppContext(app.settings, app.engine, app.vault, clock.now)


def _beat(instance: DagsterInstance, at: datetime) -> None:
    instance.add_daemon_heartbeat(DaemonHeartbeat(at.timestamp(), "BACKFILL", "a-daemon"))


def _watch(
    watched: AppContext, instance: DagsterInstance, clock: Clock, page: AnsweringPage
) -> list[tuple[BackfillStatus, int]]:
    """What is shown until the backfill ends."""
    shown: list[tuple[BackfillStatus, int]] = []
    last = watch_backfill(
        watched,
        instance,
        RunningDagster(page, ()),
        "abcdefgh",
        lambda status, api_calls: shown.append((status, api_calls)),
        clock.sleep,
    )
    assert shown[-1][0] == last
    return shown


def test_each_status_is_shown_with_its_calls_until_the_backfill_ends(
    watched: AppContext, instance: DagsterInstance, clock: Clock
) -> None:
    _beat(instance, LAUNCHED)
    imported(watched.engine, watched.vault, record(1, "Heron"))
    run = launched_run(instance, {"dagster/backfill": "abcdefgh"})
    with watched.engine.begin() as connection:
        store_entry(connection, entry("heron", run_id=run.run_id, api_calls=5))
        store_entry(connection, entry("heron", run_id="a-nightly-run", api_calls=100))
    page = AnsweringPage(
        answer("REQUESTED", (10, 0, 0)), SILENT, answer("COMPLETED_SUCCESS", (10, 10, 0))
    )

    shown = _watch(watched, instance, clock, page)

    assert [(it.name, it.filled, calls) for it, calls in shown] == [
        ("REQUESTED", 0, 5),
        ("COMPLETED_SUCCESS", 10, 5),
    ]
    assert clock.slept() == 4


def test_a_page_that_stays_silent_is_an_error_after_a_minute(
    watched: AppContext, instance: DagsterInstance, clock: Clock
) -> None:
    with pytest.raises(PageSilentError):
        _watch(watched, instance, clock, AnsweringPage(answer("REQUESTED"), SILENT))
    assert 60 <= clock.slept() < 65


def test_a_backfill_that_vanishes_is_an_error_at_once(
    watched: AppContext, instance: DagsterInstance, clock: Clock
) -> None:
    with pytest.raises(UnknownBackfillError):
        _watch(watched, instance, clock, AnsweringPage(answer("REQUESTED"), NOT_FOUND))
    assert clock.slept() == 2


def test_a_daemon_without_heartbeats_is_an_error_after_two_minutes(
    watched: AppContext, instance: DagsterInstance, clock: Clock
) -> None:
    _beat(instance, LAUNCHED + timedelta(seconds=30))
    with pytest.raises(KpiError, match=r"no heartbeat for 122 s.*`kpi up`"):
        _watch(watched, instance, clock, AnsweringPage(answer("REQUESTED")))
    assert clock.slept() == 152


def test_a_daemon_that_has_just_started_has_two_minutes_for_its_first_heartbeat(
    watched: AppContext, instance: DagsterInstance, clock: Clock
) -> None:
    instance.wipe_daemon_heartbeats()
    with pytest.raises(KpiError, match="no heartbeat for 122 s"):
        _watch(watched, instance, clock, AnsweringPage(answer("REQUESTED")))


def test_a_database_that_is_unreachable_for_a_moment_interrupts_nothing(
    watched: AppContext, instance: DagsterInstance, clock: Clock
) -> None:
    _beat(instance, LAUNCHED)
    page = AnsweringPage(answer("REQUESTED"), *[UNREACHABLE] * 20, answer("COMPLETED_SUCCESS"))
    shown = _watch(watched, instance, clock, page)
    assert [it.name for it, _ in shown] == ["REQUESTED", "COMPLETED_SUCCESS"]


def test_a_database_that_stays_unreachable_is_a_sentence_after_a_minute(
    watched: AppContext, instance: DagsterInstance, clock: Clock
) -> None:
    with pytest.raises(KpiError) as error:
        _watch(watched, instance, clock, AnsweringPage(UNREACHABLE))
    assert str(error.value) == "The database has been unreachable for a minute. Check that it runs."
    assert clock.slept() == 60


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
