"""Dagster's storages while PostgreSQL is restarted under them."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from dagster import DagsterEventType, DagsterRun, DagsterRunStatus, EventLogEntry, RunsFilter
from dagster._core.events import DagsterEvent
from sqlalchemy import create_engine, text

from kpi_pipeline.db.server.urls import for_dagster
from kpi_pipeline.orchestration.runtime.storage import (
    PooledEventLogStorage,
    RetryingRunStorage,
    RetryingScheduleStorage,
)
from kpi_pipeline_tests.cli.running import wait_until
from kpi_pipeline_tests.restartable import RestartableServer, restartable_server

pytestmark = pytest.mark.server

StorageT = TypeVar("StorageT", RetryingRunStorage, RetryingScheduleStorage, PooledEventLogStorage)


@pytest.fixture(scope="module")
def server() -> Iterator[RestartableServer]:
    with restartable_server() as server:
        yield server


def opened(server: RestartableServer, kind: type[StorageT]) -> StorageT:
    """The storage, as Dagster builds it from dagster.yaml."""
    return kind.from_config_value(None, {"postgres_url": for_dagster(server.url)})


def through_a_restart(
    server: RestartableServer, table: str, work: Callable[[], object], lock: str = "EXCLUSIVE"
) -> None:
    """Stop the server when `work` waits for a table that is locked, and start it again."""
    engine = create_engine(server.url)
    failed: list[Exception] = []

    def carefully() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - raised in the test's own thread
            failed.append(error)

    with engine.connect() as connection:
        connection.execute(text(f"LOCK TABLE {table} IN {lock} MODE"))
        working = threading.Thread(target=carefully)
        working.start()
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        wait_until(lambda: bool(connection.scalar(waiting)), "the wait for the table")
        server.stop()
        connection.invalidate()
    time.sleep(0.5)
    server.start()
    working.join(30)
    engine.dispose()
    assert not working.is_alive()
    assert failed == []


def happened(run_id: str, kind: DagsterEventType) -> EventLogEntry:
    return EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=None,
        level=10,
        user_message="",
        run_id=run_id,
        timestamp=time.time(),
        step_key=None,
        job_name="a job",
        dagster_event=DagsterEvent(kind.value, "a job"),
    )


def test_an_event_whose_write_a_restart_interrupts_is_written(server: RestartableServer) -> None:
    storage = opened(server, PooledEventLogStorage)
    run_id = str(uuid.uuid4())
    event = happened(run_id, DagsterEventType.RUN_START)

    through_a_restart(server, "event_logs", lambda: storage.store_event(event))

    assert [it.dagster_event_type for it in storage.get_logs_for_run(run_id)] == [
        DagsterEventType.RUN_START
    ]
    storage.dispose()


def test_a_step_reads_its_partitions_after_the_restart(
    server: RestartableServer,
) -> None:
    storage = opened(server, PooledEventLogStorage)
    storage.add_dynamic_partitions("workspace", ["acorn"])
    found: list[bool] = []

    through_a_restart(
        server,
        "dynamic_partitions",
        lambda: found.append(storage.has_dynamic_partition("workspace", "acorn")),
        # Holds up those who only read as well.
        lock="ACCESS EXCLUSIVE",
    )

    assert found == [True]
    storage.dispose()


def test_a_run_whose_end_a_restart_interrupts_ends(server: RestartableServer) -> None:
    storage = opened(server, RetryingRunStorage)
    run = DagsterRun(job_name="a job", run_id=str(uuid.uuid4()), status=DagsterRunStatus.STARTED)
    storage.add_run(run)
    event = DagsterEvent(DagsterEventType.RUN_SUCCESS.value, "a job")

    through_a_restart(server, "runs", lambda: storage.handle_run_event(run.run_id, event))

    (stored,) = storage.get_runs(RunsFilter(run_ids=[run.run_id]))
    assert stored.status is DagsterRunStatus.SUCCESS


def asks(storage: Any) -> object:
    """A question that the page puts to each of the three."""
    match storage:
        case RetryingRunStorage():
            return storage.get_runs_count()
        case RetryingScheduleStorage():
            return storage.all_instigator_state()
        case _:
            return storage.get_maximum_record_id()


@pytest.mark.parametrize(
    "kind", [RetryingRunStorage, RetryingScheduleStorage, PooledEventLogStorage]
)
def test_the_pages_first_query_after_a_restart_succeeds(
    server: RestartableServer, kind: type[Any]
) -> None:
    storage: Any = opened(server, kind)
    storage.optimize_for_webserver(statement_timeout=4000, pool_recycle=600, max_overflow=20)
    before = asks(storage)

    server.stop()
    server.start()

    assert asks(storage) == before
    with storage._engine.connect() as connection:
        assert connection.scalar(text("SHOW statement_timeout")) == "4s"
    storage._engine.dispose()
