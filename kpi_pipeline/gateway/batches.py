"""Events that arrive side by side are committed together: one transaction for all that wait."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.exc import DBAPIError, ProgrammingError

from kpi_pipeline.db.inbox import Receipt
from kpi_pipeline.db.retry import is_away

MOST_AT_ONCE = 50
MOST_WAITING = 2_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arrival:
    """A body as it came in for an instance, at the aware instant `at`."""

    instance: str
    body: bytes
    at: datetime


Take = Callable[[Sequence[Arrival]], Sequence[Receipt]]


class UnavailableError(Exception):
    """Nothing can be stored now; whoever sent the event is to send it again."""


class Batches:
    """Hands arrivals to `take`, one call after the other, each with all that wait by then.

    `take` works in a thread of its own; it stores all of a batch, or raises and stores nothing.
    """

    def __init__(self, take: Take) -> None:
        self._take = take
        self._waiting: asyncio.Queue[tuple[Arrival, asyncio.Future[Receipt]]] = asyncio.Queue(
            MOST_WAITING
        )

    async def ingest(self, arrival: Arrival) -> Receipt:
        """Wait until the arrival is stored; what became of it.

        Raises:
            UnavailableError: if the database is away, or too many wait already.
        """
        answer: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        try:
            self._waiting.put_nowait((arrival, answer))
        except asyncio.QueueFull:
            raise UnavailableError("too many events wait to be stored") from None
        return await answer

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Do the work while the block lasts."""
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
            while len(batch) < MOST_AT_ONCE and not self._waiting.empty():
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
        """What became of each; one that can't be stored does no harm to the others."""
        try:
            return self._take(arrivals)
        except Exception as error:  # noqa: BLE001 - handed to those who wait for the answers
            if _nothing_works(error):
                _log.warning("Events cannot be stored: the database is away or not upgraded")
                gone = UnavailableError("the database cannot be reached, or is not upgraded")
                return [gone for _ in arrivals]
            if len(arrivals) == 1:
                return [error]
        return [outcome for arrival in arrivals for outcome in self._outcomes([arrival])]


def _nothing_works(error: Exception) -> bool:
    # A table that is not there yet is a ProgrammingError.
    return isinstance(error, DBAPIError) and (is_away(error) or isinstance(error, ProgrammingError))
