"""What processes without Dagster read from its tables is what Dagster wrote."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from dagster import DagsterRun, DagsterRunStatus
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._daemon.types import DaemonHeartbeat
from sqlalchemy import URL, Engine

from kpi_pipeline.db.dagster_tables import (
    DagsterActivity,
    open_dagster_database,
    read_activity,
)
from kpi_pipeline.db.server.urls import for_dagster
from kpi_pipeline.orchestration.runtime.one_daemon import DaemonClaim
from kpi_pipeline.orchestration.runtime.storage import RetryingRunStorage

# A queued run needs one.
ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("made-up"), "repository"), "job"
)


@pytest.fixture
def storage(dagster_database: URL) -> Iterator[RetryingRunStorage]:
    """Dagster's own storage."""
    opened = RetryingRunStorage.from_config_value(
        None, {"postgres_url": for_dagster(dagster_database)}
    )
    yield opened
    opened.dispose()


@pytest.fixture
def tables(dagster_database: URL) -> Iterator[Engine]:
    """The same tables, as the dashboard opens them."""
    opened = open_dagster_database(dagster_database)
    yield opened
    opened.dispose()


def test_an_empty_storage_has_no_activity(storage: RetryingRunStorage, tables: Engine) -> None:
    assert storage.get_runs_count() == 0
    assert read_activity(tables) == DagsterActivity({}, {}, None)


def test_runs_heartbeats_and_the_claim_are_read_as_dagster_writes_them(
    storage: RetryingRunStorage, tables: Engine
) -> None:
    for number, status in enumerate(DagsterRunStatus):
        run = DagsterRun(
            job_name="job", run_id=f"run-{number}", status=status, remote_job_origin=ORIGIN
        )
        storage.add_run(run)
    claim = DaemonClaim(storage, on_loss=lambda _: None)
    claim.take("kpi up")
    beat = datetime.now(UTC) - timedelta(minutes=5)
    # The storage's own method takes the claim as well.
    heartbeat = DaemonHeartbeat(beat.timestamp(), "SENSOR", "made-up")
    super(RetryingRunStorage, storage).add_daemon_heartbeat(heartbeat)
    found = read_activity(tables)
    claim.release()
    active = ("queued", "not_started", "starting", "started", "canceling")
    assert found.runs == dict.fromkeys(active, 1), "of all statuses, those that have not ended"
    assert 300 <= found.heartbeats["sensor"] < 360
    assert found.claim_age is not None
    assert 0 <= found.claim_age < 60
    assert read_activity(tables).claim_age is None, "after an orderly end there is no claim"
