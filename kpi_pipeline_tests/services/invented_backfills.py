"""Invented backfills: their targets and status, and a page that reports them."""

import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
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
from kpi_pipeline_tests.cli.running import Result

ASSETS = ["raw_bison_stats", "kpi_projections", "client_metrics"]
FIRST, LAST = date(2026, 3, 1), date(2026, 3, 5)
LAUNCHED = datetime(2026, 3, 18, 20, 0, tzinfo=UTC)


def target(*workspaces: str, first: date = FIRST, last: date = LAST) -> BackfillTarget:
    return BackfillTarget(ASSETS, dict.fromkeys(workspaces, days_between(first, last)))


def status(name: str = "REQUESTED", **changed: Any) -> BackfillStatus:
    values: dict[str, Any] = {"targeted": 10, "filled": 0, "failed": 0, "launched_at": LAUNCHED}
    return BackfillStatus(name=name, **(values | changed))


def entry(workspace: str, error: str | None = None, **changed: Any) -> SyncEntry:
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


class ToldPage(DagsterPage):
    """A page that gives these answers in turn, and repeats the last one.

    An exception among them is raised. `asked` holds the variables of each query.
    """

    def __init__(self, *answers: Mapping[str, Any] | Exception) -> None:
        super().__init__("http://127.0.0.1:3000")
        self._answers = list(answers)
        self.asked: list[Mapping[str, Any]] = []

    def query(
        self, text: str, variables: Mapping[str, object], *, timeout: float = 60
    ) -> dict[str, Any]:
        self.asked.append(variables)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)


def told(
    state: str,
    counts: Sequence[tuple[int, int, int]] = ((10, 0, 0),),
    ended_at: float | None = None,
    error: str | None = None,
) -> dict[str, Any]:
    """Dagster's answer about a backfill: targeted, filled and failed partitions by asset."""
    names = ("numPartitionsTargeted", "numPartitionsMaterialized", "numPartitionsFailed")
    return {
        "partitionBackfillOrError": {
            "__typename": "PartitionBackfill",
            "status": state,
            "timestamp": LAUNCHED.timestamp(),
            "endTimestamp": ended_at,
            "error": {"message": error} if error else None,
            "assetBackfillData": {
                "assetBackfillStatuses": [dict(zip(names, it, strict=True)) for it in counts]
            },
        }
    }


def told_target(assets: Sequence[str], partitions: Sequence[str] | None) -> dict[str, Any]:
    """Dagster's answer about the target of a backfill."""
    targeted = None if partitions is None else {"partitionKeys": list(partitions)}
    return {
        "partitionBackfillOrError": {
            "__typename": "PartitionBackfill",
            "assetSelection": [{"path": [asset]} for asset in assets],
            "assetBackfillData": {"rootTargetedPartitions": targeted},
        }
    }


NOT_FOUND = {"partitionBackfillOrError": {"__typename": "BackfillNotFoundError"}}


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


def launched(process: subprocess.Popen[str]) -> tuple[str, str]:
    """The id of a command's backfill, and the rest of that line, once the command prints it."""
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.match(r"Backfill (\w+): (.*)", line):
            return found[1], found[2]
    raise AssertionError("no backfill was launched")


def finished(process: subprocess.Popen[str]) -> Result:
    """Wait for the end of a backfill."""
    out, err = process.communicate(timeout=600)
    return Result(process.returncode, out, err)


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
        """For how many seconds, in all."""
        return (self._now - self._start).total_seconds()
