"""Worker processes that open their installation as production does, and only read.

Each one's calls are in the sandbox's own log.
"""

import asyncio
import os
import random
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import date, datetime
from multiprocessing import get_context

from pydantic import BaseModel

from kpi_pipeline.app import AppContext, open_app
from kpi_pipeline.bison import BisonClient, BisonError, DailySeries, WorkspaceReader
from kpi_pipeline.db.registry.api_keys import stored_keys
from kpi_pipeline.db.registry.clients import all_clients
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import load_settings
from kpi_pipeline.sync.identity import workspace_ref
from kpi_pipeline_tests.bison_sandbox.running import WORKSPACES, Bison

Days = Mapping[date, Mapping[str, int]]
_START_SECONDS = 60
# The installation that a worker process has opened, until it ends.
_installation = ExitStack()
_opened: list[AppContext] = []


@dataclass(frozen=True)
class Reading:
    """The daily series of one client, `first` and `last` included."""

    workspace: str
    first: date
    last: date


@dataclass(frozen=True)
class Task:
    """Readings in their order, `at_once` of them side by side.

    After each one the worker pauses for up to `longest_pause` seconds, as a run that stores rows.
    """

    readings: Sequence[Reading]
    at_once: int = 1
    longest_pause: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """How one reading ended: with the counts of each day, or with an error, by type and text."""

    reading: Reading
    ended_at: datetime
    days: Days | None = None
    error_type: str | None = None
    error: str | None = None


class Worker:
    """One process, which has opened its installation and waits for its task."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), _open)
        self._pid = self._pool.submit(os.getpid).result(_START_SECONDS)

    def begin(self, task: Task) -> None:
        self._outcomes = self._pool.submit(_work, task)

    def outcomes(self, seconds: float) -> list[Outcome]:
        """Wait for the end of the work; the outcomes in the order in which the readings ended."""
        return self._outcomes.result(seconds)

    def kill(self) -> None:
        """End it as a crash does: without time to release anything."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        self._pool.shutdown()


@contextmanager
def at_work(*tasks: Task) -> Iterator[list[Worker]]:
    """A process for each task, all of which begin at one moment; none outlives the block."""
    with ExitStack() as stack:
        workers = []
        for _ in tasks:
            workers.append(worker := Worker())
            stack.callback(worker.kill)
        for worker, task in zip(workers, tasks, strict=True):
            worker.begin(task)
        yield workers


def _open() -> None:
    _opened.append(_installation.enter_context(open_app(load_settings())))


def _work(task: Task) -> list[Outcome]:
    return asyncio.run(_read_all(_opened[0], task))


async def _read_all(app: AppContext, task: Task) -> list[Outcome]:
    (instance,) = app.instances().values()
    slots = asyncio.Semaphore(task.at_once)
    outcomes: list[Outcome] = []
    async with app.bison_client(instance) as bison:

        async def work(reading: Reading) -> None:
            async with slots:
                outcomes.append(await _outcome(app, bison, reading))
                await asyncio.sleep(random.uniform(0, task.longest_pause))

        await asyncio.gather(*(work(reading) for reading in task.readings))
    return outcomes


async def _outcome(app: AppContext, bison: BisonClient, reading: Reading) -> Outcome:
    try:
        series = await _read(app, bison, reading)
    except (BisonError, KpiError) as error:
        return Outcome(reading, utc_now(), error_type=type(error).__name__, error=str(error))
    return Outcome(reading, utc_now(), {day: asdict(it) for day, it in series.days.items()})


async def _read(app: AppContext, bison: BisonClient, reading: Reading) -> DailySeries:
    with app.engine.connect() as connection:
        clients = {client.workspace: client for client in all_clients(connection)}
        keys = stored_keys(connection, [reading.workspace], app.vault)
    key = keys.get(reading.workspace)

    async def series(reader: WorkspaceReader) -> DailySeries:
        return await reader.daily_series(reading.first, reading.last)

    ref = workspace_ref(clients[reading.workspace])
    return (await bison.read_as(ref, key.secret if key else None, series)).value


class Call(BaseModel):
    """A call of the sandbox's log; `answered_at` is None while it is in flight."""

    at: datetime
    answered_at: datetime | None
    path: str
    query: str
    key: str
    workspace_id: int | None
    status: int | None

    def answered(self) -> datetime:
        """When it was answered, by which it must have been."""
        assert self.answered_at is not None, self
        return self.answered_at


def calls_of(bison: Bison, path: str = "") -> list[Call]:
    """The calls since the log was last emptied, all or those of one path, in order of arrival."""
    return [Call(**row) for row in bison.calls() if row["path"].startswith(path)]


def true_days(bison: Bison, workspace_id: int, first: date, last: date) -> Days:
    """The sandbox's answer to a new key of that workspace; the master key is not moved."""
    path = f"{WORKSPACES}/{workspace_id}/api-tokens"
    made = bison.call("POST", path, json={"name": "an independent reading"}).raise_for_status()
    counts = bison.series(first, last, key=made.json()["data"]["plain_text_token"])
    fields = {label: label.lower().replace(" ", "_") for label in counts}
    return {
        day: {field: counts[label][number] for label, field in fields.items()}
        for number, day in enumerate(days_between(first, last))
    }
