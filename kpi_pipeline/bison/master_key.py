"""Reading through the master key, which acts in whichever workspace it was last switched to."""

from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from kpi_pipeline.bison import remedies
from kpi_pipeline.bison.answers import Team, acting_team, switched
from kpi_pipeline.bison.calls import Access, Call, Caller
from kpi_pipeline.bison.errors import WrongWorkspace
from kpi_pipeline.bison.model import WorkspaceRef

WHO_AM_I = Call("GET", "/api/users")
SWITCH = Call("POST", "/api/workspaces/v1.1/switch-workspace")

_REPEATS = 3
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 2.0

T = TypeVar("T")


class MasterKeyTurn:
    """One client's turn with the master key. Whoever uses it holds the key's lock.

    Five clients once showed the same 162,179 emails: calls side by side on one such key, none of
    them verified. So the key's workspace is asked for before the numbers and again after them.
    """

    def __init__(
        self,
        caller: Caller,
        access: Access,
        ref: WorkspaceRef,
        patience_seconds: float,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._caller = caller
        self._access = access
        self._ref = ref
        self._patience_seconds = patience_seconds
        self._sleep = sleep

    async def read(self, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` returns while the key acts in the client's workspace, before and after.

        If somebody moved the key meanwhile, in Email Bison's own pages, the value is thrown away
        and the whole is done again, three times at most.

        Raises:
            WrongWorkspace: if the switch takes no effect in time, or the key moves each time.
            BisonError: whatever `read` or the calls around it raise.
        """
        for _ in range(1 + _REPEATS):
            await self._switch()
            value = await read()
            team = await self._acting_team()
            if team.id == self._ref.bison_workspace_id:
                return value
        raise WrongWorkspace(
            self._access.client,
            str(WHO_AM_I),
            f"shows that the master key was moved to workspace {team} while workspace "
            f"{self._ref.bison_workspace_id} was read, {1 + _REPEATS} times in a row",
            remedies.KEY_MOVED,
        )

    async def _switch(self) -> None:
        wanted = self._ref.bison_workspace_id
        call = Call(SWITCH.method, SWITCH.path, json={"team_id": wanted})
        await self._caller.call(call, self._access, switched)
        team = await self._acting_team()
        # Observed live: a switch can need 1 to 3 s to take effect.
        for pause in _pauses(self._patience_seconds):
            if team.id == wanted:
                return
            await self._sleep(pause)
            team = await self._acting_team()
        if team.id != wanted:
            raise WrongWorkspace(
                self._access.client,
                str(WHO_AM_I),
                f"shows the master key in workspace {team} "
                f"{self._patience_seconds:g} s after the switch to workspace {wanted}",
                remedies.SWITCH_TOO_SLOW,
            )

    async def _acting_team(self) -> Team:
        return (await self._caller.call(WHO_AM_I, self._access, acting_team)).value


def _pauses(patience_seconds: float) -> Iterator[float]:
    """Growing pauses, in seconds, that add up to the patience."""
    left, pause = patience_seconds, _FIRST_PAUSE_SECONDS
    while left > 0:
        yield min(pause, left)
        left -= pause
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
