"""Invented backfills: their targets and states, and a page that reports them."""

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
from kpi_pipeline.services.dagster_page import DagsterPage
from kpi_pipeline_tests.agency import ASSETS

FIRST, LAST = date(2026, 3, 1), date(2026, 3, 5)
LAUNCHED = datetime(2026, 3, 18, 20, 0, tzinfo=UTC)
NOT_FOUND = {"partitionBackfillOrError": {"__typename": "BackfillNotFoundError"}}


def target(*workspaces: str) -> BackfillTarget:
    """Five days of these clients."""
    return BackfillTarget(ASSETS, dict.fromkeys(workspaces, days_between(FIRST, LAST)))


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


def answer(state: str, *counts: tuple[int, int, int], **changed: object) -> dict[str, Any]:
    """Dagster's answer about a backfill: targeted, filled and failed partitions by asset."""
    names = ("numPartitionsTargeted", "numPartitionsMaterialized", "numPartitionsFailed")
    assets = [dict(zip(names, it, strict=True)) for it in counts or [(10, 0, 0)]]
    return {
        "partitionBackfillOrError": {
            "__typename": "PartitionBackfill",
            "status": state,
            "timestamp": LAUNCHED.timestamp(),
            "endTimestamp": None,
            "error": None,
            "assetBackfillData": {"assetBackfillStatuses": assets},
            **changed,
        }
    }


class AnsweringPage(DagsterPage):
    """A page that gives these answers one after the other, and repeats the last one.

    An exception among them is raised. `queries` holds the variables of each query.
    """

    def __init__(self, *answers: Mapping[str, Any] | Exception) -> None:
        super().__init__("http://127.0.0.1:3000")
        self._answers = list(answers)
        self.queries: list[Mapping[str, Any]] = []

    def query(
        self, text: str, variables: Mapping[str, object], *, timeout: float = 60
    ) -> dict[str, Any]:
        self.queries.append(variables)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)


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
