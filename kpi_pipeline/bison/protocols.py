"""What the client needs from its caller, because several processes share it."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Pacing(Protocol):
    """Limits the rate of calls to one instance."""

    def slot(self, *, ahead: bool = False) -> AbstractAsyncContextManager[None]:
        """Wait until the next call may be sent, and hold one of the instance's slots meanwhile.

        A caller that is `ahead` is served before those of the same process that are not.
        """
        ...

    async def push_back(self, seconds: float) -> None:
        """Let nobody send for that many seconds: the instance answered 429."""
        ...


class MasterKeyLock(Protocol):
    """Gives an instance's master key to one holder at a time: its workspace is shared state."""

    def held(self, instance: str) -> AbstractAsyncContextManager[None]:
        """Wait for the lock of the instance of that name, and hold it for the block.

        Leaving the block raises if the lock was lost meanwhile: what was read can't be believed.
        """
        ...
