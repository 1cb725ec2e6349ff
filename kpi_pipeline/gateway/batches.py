"""Group commit: events that arrive while a transaction runs share the next one.

One event takes some 16 ms from POST to commit; 2,000 at once take a few seconds.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from kpi_pipeline.db.events.inbox import Receipt
from kpi_pipeline.gateway.last_write import LastWrite, why_unavailable

MAX_BATCH = 50
MAX_WAITING = 2_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arrival:
    """A body as received for an instance, at the aware instant `at`.

    `test_name` is that of a test event, which its URL names.
    """

    instance: str
    body: bytes
    at: datetime
    test_name: str | None = None


Take = Callable[[Sequence[Arrival]], Sequence[Receipt]]


class UnavailableError(Exception):
    """Nothing can be stored now; the sender has to try again."""


class Batches:
    """Passes arrivals to `take`, one call at a time, each with all that are waiting by then.

    `take` runs in a thread of its own. It stores a whole batch, or raises and stores nothing.
    `last_write` gets how each call ended.
    """

    def __init__(self, take: Take, last_write: LastWrite | None = None) -> None:
        self._take = take
        self._last_write = last_write or LastWrite()
        self._waiting: asyncio.Queue[tuple[Arrival, asyncio.Future[Receipt]]] = asyncio.Queue(
            MAX_WAITING
        )

    async def ingest(self, arrival: Arrival) -> Receipt:
        """Wait until the arrival is stored, and return its receipt.

        Raises:
            UnavailableError: if the database is unreachable or stores nothing, or too many are
                waiting already.
        """
        answer: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        try:
            self._waiting.put_nowait((arrival, answer))
        except asyncio.QueueFull:
            raise UnavailableError("too many events are waiting to be stored") from None
        return await answer

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Store arrivals while the block lasts."""
        with ThreadPoolExecutor(1, "events") as thread:
            worker = asyncio.create_task(self._work(thread))
            try:
                yield
            finally:
                worker.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await worker

    async def _work(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < MAX_BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            arrivals = [arrival for arrival, _ in batch]
            outcomes = await loop.run_in_executor(thread, self._outcomes, arrivals)
            for (_, answer), outcome in zip(batch, outcomes, strict=True):
                if answer.done():
                    continue
                if isinstance(outcome, Exception):
                    answer.set_exception(outcome)
                else:
                    answer.set_result(outcome)

    def _outcomes(self, arrivals: Sequence[Arrival]) -> Sequence[Receipt | Exception]:
        """The outcome of each; one that can't be stored does not affect the others."""
        try:
            receipts = self._take(arrivals)
        except Exception as error:  # noqa: BLE001 - passed to the waiting callers
            if (reason := why_unavailable(error)) is not None:
                if self._last_write.fail(reason):
                    _log.warning("Events cannot be stored: %s", reason)
                return [UnavailableError(reason) for _ in arrivals]
            if len(arrivals) == 1:
                return [error]
        else:
            self._last_write.succeed()
            return receipts
        return [outcome for arrival in arrivals for outcome in self._outcomes([arrival])]
