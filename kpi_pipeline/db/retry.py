"""Bears with a PostgreSQL that is away for a moment: restarted, or failed over to another.

No stamina here: it would count the time that the work itself took, and what hooks it has tell of
calls to Email Bison.
"""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, OperationalError

from kpi_pipeline.db.engine import reason_of
from kpi_pipeline.errors import KpiError

PATIENCE_SECONDS = 30.0

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0
# SQLSTATEs of a server that is going or coming: shut down by its administrator, crashed, or not
# ready yet. Class 08 are the connection's own troubles.
_GOING_OR_COMING = ("57P01", "57P02", "57P03", "08")

_log = logging.getLogger(__name__)

T = TypeVar("T")


class DatabaseAway(KpiError):  # noqa: N818 - says what happened
    """The database stayed out of reach for longer than a restart takes."""


def retry_on_disconnect(work: Callable[[], T], *, seconds: float = PATIENCE_SECONDS) -> T:
    """As `retry_while_disconnected`, for work on the KPI database.

    Raises:
        DatabaseAway: if the database is still away after that time.
    """
    try:
        return retry_while_disconnected(work, seconds=seconds)
    except DBAPIError as error:
        if not is_away(error):
            raise
        raise DatabaseAway(
            f"The database could not be reached for {seconds:g} s: {reason_of(error)}. "
            "See that PostgreSQL runs, and run it again."
        ) from error


def retry_while_disconnected(work: Callable[[], T], *, seconds: float = PATIENCE_SECONDS) -> T:
    """Do `work`; as long as the database is away, do all of it again.

    `work` opens its connection itself, and is a whole transaction that may be done twice: where
    the connection broke on its commit, nobody can tell whether that was done. It is tried for
    `seconds` from the first trouble on; whatever else it raises is raised at once.

    Raises:
        DBAPIError: the last trouble, if the database is still away after that time.
    """
    pause = _FIRST_PAUSE_SECONDS
    deadline: float | None = None
    while True:
        try:
            return work()
        except DBAPIError as error:
            if not is_away(error):
                raise
            now = time.monotonic()
            if deadline is None:
                deadline = now + seconds
                _log.warning("The database is away (%s); waiting for it.", reason_of(error))
            if now >= deadline:
                raise
        # Some jitter, so that all who wait do not come back at one moment.
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def is_away(error: BaseException) -> bool:
    """Whether the error tells of a server that is gone, going or coming, and not of the work.

    What stands in the way of a new connection counts as well, whatever it is: libpq tells only in
    words, in the server's language, whether that may pass.
    """
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    # psycopg calls it sqlstate, psycopg2 pgcode.
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    if state is not None:
        return str(state).startswith(_GOING_OR_COMING)
    return isinstance(error, OperationalError)
