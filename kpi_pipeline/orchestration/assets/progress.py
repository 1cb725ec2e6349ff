"""Logs what a run has filled while it is under way, so that the page shows its progress."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from kpi_pipeline.sync.run import ClientOutcome

# Events are cheap in batches: a client's year is one, and so are many clients' days.
_PARTITIONS_AT_LEAST = 300
_SECONDS_AT_MOST = 5.0


class ProgressLog:
    """Collects the outcomes of clients, and logs them with `log` a batch at a time.

    A context manager: what is left is logged at its end, also when the run fails or is cancelled.
    """

    def __init__(
        self,
        log: Callable[[Sequence["ClientOutcome"]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._clock = log, clock
        self._pending: list[ClientOutcome] = []
        self._since = clock()

    def add(self, outcome: "ClientOutcome") -> None:
        """Take the outcome of a client that is done; log the batch if it is large or old enough."""
        self._pending.append(outcome)
        partitions = sum(len(it.numbers) for it in self._pending)
        if partitions >= _PARTITIONS_AT_LEAST or self._clock() - self._since >= _SECONDS_AT_MOST:
            self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._flush()

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        if pending:
            self._log(pending)
        self._since = self._clock()
