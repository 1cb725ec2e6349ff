import asyncio
from collections.abc import Callable, Coroutine


class Background:
    """Work in the server's event loop beside its calls: started once, stopped in good order.

    `work` makes the coroutine; it ends by being cancelled.
    """

    def __init__(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, unless it is under way; to be called from within the event loop."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """End it, and wait until it has let go of what it held."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
