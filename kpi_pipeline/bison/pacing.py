import asyncio
import time
from collections.abc import Awaitable, Callable

from kpi_pipeline.bison.ports import Pacing


class InProcessPacing(Pacing):
    """Evenly spaced sends within one process; `calls_per_second` 0 means no limit.

    Moments are given out in advance, so that many waiting callers need no lock and one instance of
    this class serves any number of event loops, one after another.
    """

    def __init__(
        self,
        calls_per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._interval = 1 / calls_per_second if calls_per_second else 0.0
        self._clock = clock
        self._sleep = sleep
        self._next = clock()
        self._pushes = 0

    async def turn(self) -> None:
        """Return when the next call may be sent."""
        while True:
            pushes = self._pushes
            moment = max(self._next, self._clock())
            self._next = moment + self._interval
            if (wait := moment - self._clock()) > 0:
                await self._sleep(wait)
            # Whoever was given a moment before a push back gives it up and queues again.
            if pushes == self._pushes:
                return

    async def push_back(self, seconds: float) -> None:
        """Let nobody send for that many seconds, those who wait already included."""
        self._pushes += 1
        self._next = max(self._next, self._clock() + seconds)
