"""Invented backfills: their targets, states, log and runs, and a clock."""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.test_utils import create_run_for_test

from kpi_pipeline.db.sync_log import SyncEntry
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.services.backfills import BackfillStatus, BackfillTarget

FIRST, LAST = date(2026, 3, 1), date(2026, 3, 5)
LAUNCHED = datetime(2026, 3, 18, 20, 0, tzinfo=UTC)


def target(*workspaces: str) -> BackfillTarget:
    """Five days of these clients."""
    return BackfillTarget(dict.fromkeys(workspaces, days_between(FIRST, LAST)))


def status(name: str = "REQUESTED", **changed: Any) -> BackfillStatus:
    values: dict[str, Any] = {"targeted": 10, "filled": 0, "failed": 0, "launched_at": LAUNCHED}
    return BackfillStatus(name=name, **(values | changed))


def entry(workspace: str, error: str | None = None, **changed: Any) -> SyncEntry:
    """A client's line in the log of a run over the five days."""
    values: dict[str, Any] = {
        "run_id": "a-run",
        "first_date": FIRST,
        "last_date": LAST,
        "key_used": "workspace",
        "api_calls": 3,
        "seconds": 2.5,
        "waiting_seconds": 1.5,
        "calling_seconds": 0.75,
        "finished_at": LAUNCHED,
    }
    return SyncEntry(workspace=workspace, error=error, **(values | changed))


def launched_run(
    instance: DagsterInstance,
    tags: Mapping[str, str],
    status: DagsterRunStatus = DagsterRunStatus.STARTED,
) -> DagsterRun:
    """A run as the daemon launches it, without a process."""
    location = RegisteredCodeLocationOrigin("kpi_pipeline")
    job = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), "__ASSET_JOB")
    run = create_run_for_test(instance, status=status, tags=dict(tags), remote_job_origin=job)
    assert isinstance(run, DagsterRun)
    return run


class Clock:
    """A clock that moves only by sleeping; `then` is called after each sleep."""

    def __init__(self, start: datetime = LAUNCHED) -> None:
        self._start = self._now = start
        self.then: Callable[[], None] = lambda: None

    def now(self) -> datetime:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self.then()

    def slept(self) -> float:
        """The seconds of all sleeps."""
        return (self._now - self._start).total_seconds()
