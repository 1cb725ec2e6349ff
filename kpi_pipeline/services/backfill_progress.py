"""Shows how a backfill gets on: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from kpi_pipeline.services.backfill_page import BackfillStatus

_LINE_EVERY_SECONDS = 30.0


class Pace:
    """How fast partitions are done with, from what was seen since the first look."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, int] | None = None

    def seconds_left(self, status: BackfillStatus) -> float | None:
        """How long the rest will take at the pace so far; None while nothing has been done."""
        now, left = self._clock(), status.left
        if self._first is None:
            self._first = now, left
        since, left_then = self._first
        if left == left_then:
            return None
        return left * (now - since) / (left_then - left)


def progress_line(status: BackfillStatus, api_calls: int, seconds_left: float | None) -> str:
    """One line: partitions done, failed and left, calls, and how long the rest will take."""
    failed = f", {status.failed:,} failed" if status.failed else ""
    rest = f"; {_in_words(seconds_left)}" if status.left else ""
    return (
        f"{status.filled:,} of {status.targeted:,} partitions done{failed}, {status.left:,} left; "
        f"{api_calls:,} API calls{rest}"
    )


class BackfillProgress:
    """Shows the line of `progress_line` on `console`, for as long as the block runs."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._pace = Pace(clock)
        self._bar = Progress(BarColumn(), TextColumn("{task.description}"), console=console)
        self._task = self._bar.add_task("waiting for Dagster", total=None)
        self._next_line = clock()
        self._said = ""

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
        """Show how the backfill stands."""
        line = progress_line(status, api_calls, self._pace.seconds_left(status))
        if self._console.is_terminal:
            done = status.targeted - status.left
            self._bar.update(
                self._task, description=line, completed=done, total=status.targeted or None
            )
        elif line != self._said and (status.ended or self._clock() >= self._next_line):
            self._console.print(line, soft_wrap=True)
            self._said = line
            self._next_line = self._clock() + _LINE_EVERY_SECONDS


def _in_words(seconds: float | None) -> str:
    if seconds is None:
        return "time left not known yet"
    if seconds < 60:
        return "less than a minute left"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    return f"about {hours} h {minutes} min left" if hours else f"about {minutes} min left"
