"""Reads with the master key, which acts in the workspace that it was last switched to."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from kpi_pipeline.bison import errors
from kpi_pipeline.bison.answers import ActingWorkspace, acting_workspace, switched
from kpi_pipeline.bison.call_stats import note_waiting
from kpi_pipeline.bison.calls import Access, Call, Caller
from kpi_pipeline.bison.errors import WrongWorkspace
from kpi_pipeline.bison.model import WorkspaceRef

WHO_AM_I = Call("GET", "/api/users")
SWITCH = Call("POST", "/api/workspaces/v1.1/switch-workspace")

_REPEATS = 3
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 2.0

T = TypeVar("T")


class MasterKeyReading:
    """Reads one client's workspace with the master key. The caller holds the master key's lock.

    Five clients once showed the same 162,179 emails: calls ran side by side on one master key, and
    none was verified. So the key's workspace is read before the numbers and again after them.
    """

    def __init__(
        self,
        caller: Caller,
        access: Access,
        ref: WorkspaceRef,
        timeout_seconds: float,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._caller = caller
        self._access = access
        self._wanted = ref.bison_workspace_id
        self._timeout_seconds = timeout_seconds
        self._sleep = sleep

    async def read(self, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` returns while the key acts in the client's workspace, before and after.

        If somebody switched the key meanwhile, in Email Bison's own pages, the value is thrown away
        and all of it is done again, three times at most.

        Raises:
            WrongWorkspace: if the key acts elsewhere each time; the message names both workspaces.
            BisonError: whatever `read` or the calls around it raise.
        """
        for _ in range(1 + _REPEATS):
            if (acting := await self._switched()).id != self._wanted:
                when = f"{self._timeout_seconds:g} s after the switch to"
                remedy = errors.SWITCH_TOO_SLOW
                continue
            value = await read()
            if (acting := await self._acting_in()).id == self._wanted:
                return value
            when, remedy = "after the reading of", errors.KEY_MOVED
        raise WrongWorkspace(
            self._access.client,
            str(WHO_AM_I),
            f"shows the master key in workspace {acting} {when} workspace {self._wanted}, "
            f"in the last of {1 + _REPEATS} attempts; nothing of them was believed",
            remedy,
        )

    async def _switched(self) -> ActingWorkspace:
        """Switch the key; return the workspace that it acts in then.

        A switch can need 1 to 3 s to take effect (observed live), so this polls.
        """
        call = replace(SWITCH, json={"team_id": self._wanted})
        await self._caller.call(call, self._access, switched)
        acting = await self._acting_in()
        for pause in _pauses(self._timeout_seconds):
            if acting.id == self._wanted:
                break
            await self._sleep(pause)
            note_waiting(pause)
            acting = await self._acting_in()
        return acting

    async def _acting_in(self) -> ActingWorkspace:
        return (await self._caller.call(WHO_AM_I, self._access, acting_workspace)).value


def _pauses(timeout_seconds: float) -> Iterator[float]:
    """Growing pauses between polls, in seconds, that add up to the time-out."""
    left, pause = timeout_seconds, _FIRST_PAUSE_SECONDS
    while left > 0:
        yield min(pause, left)
        left -= pause
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
