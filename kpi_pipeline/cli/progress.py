"""The progress of a run and of a backfill: a bar on a terminal, lines elsewhere."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import Engine

from kpi_pipeline.cli.common import err
from kpi_pipeline.db.sync_log import count_entries
from kpi_pipeline.services.backfills import BackfillStatus

_POLL_SECONDS = 0.3
_LINE_EVERY_SECONDS = 30.0


def watch_run(
    engine: Engine, run_id: str, clients: int, title: str, finished: Callable[[], bool]
) -> None:
    """Show how many of `clients` the run has finished, until `finished` returns True.

    The numbers come from the rows that the run writes to `sync_log`.
    """
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("clients"),
        TimeElapsedColumn(),
        console=err,
    ) as progress:
        task = progress.add_task(title, total=clients)
        while True:
            # Asked first: the count then includes all that the run wrote before it ended.
            over = finished()
            with engine.connect() as connection:
                progress.update(task, completed=count_entries(connection, run_id))
            if over:
                return
            time.sleep(_POLL_SECONDS)


@contextmanager
def watching_run(engine: Engine, run_id: str, clients: int, title: str) -> Iterator[None]:
    """Show the progress of a run that this block carries out."""
    over = threading.Event()
    watcher = threading.Thread(
        target=watch_run, args=(engine, run_id, clients, title, over.is_set), daemon=True
    )
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


class Pace:
    """How fast partitions are finished, measured since the first status."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, int] | None = None

    def seconds_left(self, status: BackfillStatus) -> float | None:
        """The expected seconds until the end; None while nothing has been finished."""
        now, left = self._clock(), status.left
        if self._first is None:
            self._first = now, left
        since, left_then = self._first
        if left == left_then:
            return None
        return left * (now - since) / (left_then - left)


def progress_line(status: BackfillStatus, api_calls: int, seconds_left: float | None) -> str:
    """One line: partitions done, failed and left, API calls, and the expected time left."""
    failed = f", {status.failed:,} failed" if status.failed else ""
    rest = f"; {_time_left(seconds_left)}" if status.left else ""
    return (
        f"{status.filled:,} of {status.targeted:,} partitions done{failed}, {status.left:,} left; "
        f"{api_calls:,} API calls{rest}"
    )


class BackfillProgress:
    """Shows the line of `progress_line` on `console` while the block runs."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._pace = Pace(clock)
        self._bar = Progress(BarColumn(), TextColumn("{task.description}"), console=console)
        self._task = self._bar.add_task("waiting for Dagster", total=None)
        self._next_line = clock()
        self._last_line = ""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def show(self, status: BackfillStatus, api_calls: int) -> None:
        """Show this status: at once on a terminal, else twice a minute and at the end."""
        line = progress_line(status, api_calls, self._pace.seconds_left(status))
        if self._console.is_terminal:
            done = status.targeted - status.left
            self._bar.update(
                self._task, description=line, completed=done, total=status.targeted or None
            )
        elif line != self._last_line and (status.ended or self._clock() >= self._next_line):
            self._console.print(line, soft_wrap=True)
            self._last_line = line
            self._next_line = self._clock() + _LINE_EVERY_SECONDS


def _time_left(seconds: float | None) -> str:
    if seconds is None:
        return "time left unknown"
    if seconds < 60:
        return "less than a minute left"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    return f"about {hours} h {minutes} min left" if hours else f"about {minutes} min left"
