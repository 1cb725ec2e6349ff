"""Why a database that answers stores nothing: its disk is full, or it is read-only."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy.exc import DBAPIError, ProgrammingError

from kpi_pipeline.db.server.retry import is_away

# Long enough for the next delivery of a quiet agency to renew it, or for the next probe to see it.
REMEMBERED_SECONDS = 30.0
AWAY = "the database cannot be reached, or is not upgraded"
READ_ONLY = "the database is read-only"
# By the beginning of the SQLSTATE, the longest first. Class 53: a lack of resources; class 58: an
# error of the server's system.
_CANNOT_WRITE = {
    "53100": "the disk of the database is full",
    "25006": READ_ONLY,
    "53": "the database lacks memory, or another resource",
    "58": "the database cannot read or write its files",
}


def why_unavailable(error: BaseException) -> str | None:
    """Why nothing can be stored now, if the error says that; None: only this event can't be."""
    if not isinstance(error, DBAPIError):
        return None
    state = str(getattr(error.orig, "sqlstate", None) or "")
    for beginning, reason in _CANNOT_WRITE.items():
        if state.startswith(beginning):
            return reason
    # A missing table is a ProgrammingError.
    return AWAY if is_away(error) or isinstance(error, ProgrammingError) else None


@dataclass
class LastWrite:
    """How the last attempt to store events ended, for `GET /readyz`. `now` is a steady clock."""

    now: Callable[[], float] = time.monotonic
    _failed: tuple[float, str] | None = field(default=None, init=False)

    @property
    def problem(self) -> str | None:
        """Why it failed, if that was within `REMEMBERED_SECONDS`.

        What `GET /readyz` finds out without a write is not remembered: it may be over.
        """
        failed = self._failed
        if failed is None or self.now() > failed[0] + REMEMBERED_SECONDS:
            return None
        return None if failed[1] in (AWAY, READ_ONLY) else failed[1]

    def succeed(self) -> None:
        """Events were stored."""
        self._failed = None

    def fail(self, reason: str) -> bool:
        """None could be stored; return whether that is news, which belongs in the log."""
        before, self._failed = self._failed, (self.now(), reason)
        return before is None or before[1] != reason
