"""Worker processes at work, and what the sandbox itself says of their calls."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from kpi_pipeline_tests.agency import SERIES
from kpi_pipeline_tests.bison_sandbox.running import WORKSPACES, Bison
from kpi_pipeline_tests.cli.running import wait_until
from kpi_pipeline_tests.processes import worker as program
from kpi_pipeline_tests.processes.tasks import Outcome, Reading, Task

Days = Mapping[date, Mapping[str, int]]


class Worker:
    """One process. It writes its output to files: no pipe can fill up and stop it."""

    def __init__(self, task: Task, folder: Path, name: str) -> None:
        self._name = name
        self._out, self._err = folder / f"{name}.out", folder / f"{name}.err"
        with self._out.open("w") as out, self._err.open("w") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-m", program.__name__, task.model_dump_json()],
                env=dict(os.environ),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
            )

    def is_ready(self) -> bool:
        assert self._process.poll() is None, f"a process ended before its work; {self.told()}"
        return program.READY in self._out.read_text()

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()

    def outcomes(self, seconds: float) -> list[Outcome]:
        """Wait for the end of the work; the outcomes in the order in which they were known."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not done within {seconds:g} s; {self.told()}") from None
        assert code == 0, self.told()
        _, *lines = self._out.read_text().splitlines()
        return [Outcome.model_validate_json(line) for line in lines]

    def kill(self) -> None:
        """End it as a crash does: with no time to give anything back."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def told(self) -> str:
        """The end of what it printed, for the message of a failed test."""
        parts = (self._out.read_text()[-2000:], self._err.read_text()[-4000:])
        return f"{self._name} printed: {' / '.join(parts)}"


@contextmanager
def at_work(folder: Path, *tasks: Task) -> Iterator[list[Worker]]:
    """A process for each task, all let go at one moment; none outlives the block."""
    with ExitStack() as stack:
        workers = []
        for task in tasks:
            worker = Worker(task, folder, f"worker {len(list(folder.glob('*.out')))}")
            stack.callback(worker.kill)
            workers.append(worker)
        for worker in workers:
            wait_until(worker.is_ready, "the start of a process", seconds=60)
        for worker in workers:
            worker.go()
        yield workers


@dataclass(frozen=True)
class Arrival:
    """A call of the sandbox's log; `answered_at` is None while it is under way."""

    at: datetime
    answered_at: datetime | None
    path: str
    query: str
    key: str
    workspace_id: int | None
    status: int | None

    @property
    def period(self) -> tuple[date, date]:
        """The first and the last day that a series call asks for."""
        asked = parse_qs(self.query)
        first, last = asked["start_date"][0], asked["end_date"][0]
        return date.fromisoformat(first), date.fromisoformat(last)

    def answered(self) -> datetime:
        """When it was answered, by which it must have been."""
        assert self.answered_at is not None, self
        return self.answered_at


def arrivals(bison: Bison) -> list[Arrival]:
    """The calls since the log was last forgotten, in the order of arrival."""
    return [_arrival(row) for row in bison.calls()]


def series_calls(bison: Bison) -> list[Arrival]:
    return [call for call in arrivals(bison) if call.path == SERIES]


def _arrival(row: Mapping[str, Any]) -> Arrival:
    answered = row["answered_at"]
    return Arrival(
        at=datetime.fromisoformat(row["at"]),
        answered_at=datetime.fromisoformat(answered) if answered else None,
        path=row["path"],
        query=row["query"],
        key=row["key"],
        workspace_id=row["workspace_id"],
        status=row["status"],
    )


def truth(bison: Bison, workspace_id: int, first: date, last: date) -> Days:
    """What the sandbox says to a key of that workspace alone; the master key is not moved."""
    path = f"{WORKSPACES}/{workspace_id}/api-tokens"
    made = bison.call("POST", path, json={"name": "an independent reading"}).raise_for_status()
    lines = bison.data(
        SERIES,
        key=made.json()["data"]["plain_text_token"],
        start_date=first.isoformat(),
        end_date=last.isoformat(),
    )
    days: dict[date, dict[str, int]] = {}
    for line in lines:
        for day, count in line["dates"]:
            field = line["label"].lower().replace(" ", "_")
            days.setdefault(date.fromisoformat(day), {})[field] = count
    return days


def part(days: Days, reading: Reading) -> Days:
    """What of `days` the reading asks for."""
    return {day: counts for day, counts in days.items() if reading.first <= day <= reading.last}


def errors(outcomes: Sequence[Outcome]) -> list[str]:
    """What the troubles among the outcomes say."""
    return [outcome.error for outcome in outcomes if outcome.error is not None]
