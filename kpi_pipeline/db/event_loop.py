"""What async code needs to work with the database: threads that end, and queues."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def to_the_end(work: Callable[[], T]) -> T:
    """Run `work` in a thread. A cancellation is raised only once the work has ended.

    So whoever takes something with it knows that nothing is taken any more, and can give it back.
    """
    future = asyncio.get_running_loop().run_in_executor(None, work)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        # Looked at, so that asyncio does not complain of an error that nobody took notice of.
        future.exception()
        raise cancelled
    return future.result()


class LoopLock:
    """A lock that serves one event loop after another: an `asyncio.Lock` clings to its first."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()

    def here(self) -> asyncio.Lock:
        """The lock of the running event loop; its waiters are served in the order of coming."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._lock = loop, asyncio.Lock()
        return self._lock
