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

from sqlalchemy.exc import DBAPIError, ProgrammingError

from kpi_pipeline.db.events.inbox import Receipt
from kpi_pipeline.db.server.retry import is_away

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
    """

    def __init__(self, take: Take) -> None:
        self._take = take
        self._waiting: asyncio.Queue[tuple[Arrival, asyncio.Future[Receipt]]] = asyncio.Queue(
            MAX_WAITING
        )

    async def ingest(self, arrival: Arrival) -> Receipt:
        """Wait until the arrival is stored, and return its receipt.

        Raises:
            UnavailableError: if the database is unreachable, or too many are waiting already.
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
            return self._take(arrivals)
        except Exception as error:  # noqa: BLE001 - passed to the waiting callers
            if _is_unavailable(error):
                _log.warning("Events cannot be stored: the database is unreachable or not upgraded")
                unavailable = UnavailableError("the database cannot be reached, or is not upgraded")
                return [unavailable for _ in arrivals]
            if len(arrivals) == 1:
                return [error]
        return [outcome for arrival in arrivals for outcome in self._outcomes([arrival])]


def _is_unavailable(error: Exception) -> bool:
    # A missing table is a ProgrammingError.
    return isinstance(error, DBAPIError) and (is_away(error) or isinstance(error, ProgrammingError))
