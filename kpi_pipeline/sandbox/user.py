"""The agency's one user, who is in one workspace at a time, and whom the master key follows."""

import time
from collections.abc import Callable


class AgencyUser:
    """The one user of the instance; its master key acts in the user's current workspace.

    A switch may take a while until it acts. A newer switch calls off those before it that would
    act later than itself: the last word wins. `clock` counts seconds.
    """

    def __init__(self, workspace_id: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.id = 1
        self.name = "Avery Quill"
        self.email = "avery@agency.example"
        self._workspace_id = workspace_id
        self._clock = clock
        self._coming: list[tuple[float, int]] = []

    @property
    def current_workspace_id(self) -> int:
        """Where the master key acts now."""
        now = self._clock()
        while self._coming and self._coming[0][0] <= now:
            self._workspace_id = self._coming.pop(0)[1]
        return self._workspace_id

    def switch(self, workspace_id: int, seconds: float = 0.0) -> None:
        """Move to another workspace, in so many seconds."""
        due = self._clock() + seconds
        self._coming = [each for each in self._coming if each[0] < due]
        self._coming.append((due, workspace_id))

    def leave(self, workspace_id: int, instead: int) -> None:
        """Get out of a workspace that is gone, and never arrive there."""
        self._coming = [each for each in self._coming if each[1] != workspace_id]
        if self.current_workspace_id == workspace_id:
            self._workspace_id = instead
