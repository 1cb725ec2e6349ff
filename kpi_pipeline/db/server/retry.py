"""Retries work while PostgreSQL is unreachable (restart or failover)."""

import logging
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, OperationalError

from kpi_pipeline.db.server.engine import reason_of, sqlstate_of
from kpi_pipeline.errors import KpiError
from kpi_pipeline.retry import Backoff, retry_for

# Longer than a restart or a failover takes.
RETRY_SECONDS = 30.0

_BACKOFF = Backoff(first=0.05, longest=1.5, jitter=0.1)
# SQLSTATEs of a server that shuts down, crashed or starts up, of a session that was idle for longer
# than the host allows, and of one that was refused. Class 08 are connection errors.
_UNREACHABLE_STATES = ("57P01", "57P02", "57P03", "57P05", "53300", "08")

_log = logging.getLogger(__name__)

T = TypeVar("T")


class DatabaseAway(KpiError):  # noqa: N818 - says what happened
    """The database stayed unreachable for longer than a restart takes."""


def retry_on_disconnect(work: Callable[[], T], *, seconds: float = RETRY_SECONDS) -> T:
    """As `retry_while_disconnected`, for work on the KPI database.

    Raises:
        DatabaseAway: if the database is still unreachable after that time.
    """
    try:
        return retry_while_disconnected(work, seconds=seconds)
    except DBAPIError as error:
        if not is_away(error):
            raise
        raise DatabaseAway(
            f"The database could not be reached for {seconds:g} s: {reason_of(error)}. "
            "Check that PostgreSQL runs, then run it again."
        ) from error


def retry_while_disconnected(work: Callable[[], T], *, seconds: float = RETRY_SECONDS) -> T:
    """Do `work`, and all of it again while the database is unreachable.

    `work` opens its own connection, and is a whole transaction that may be done twice: after a
    connection that broke on the commit, nobody knows whether the server committed. It is retried
    for `seconds` from the first error on; any other error is raised at once.

    Raises:
        DBAPIError: the last error, if the database is still unreachable after that time.
    """
    return retry_for(seconds, work, _BACKOFF, is_away, before_first_pause=_note)


def is_away(error: BaseException) -> bool:
    """Whether the error says that the server is unreachable, and nothing of the work itself.

    Any error of a new connection counts: libpq gives no SQLSTATE there, only words in the server's
    language.
    """
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    state = sqlstate_of(error)
    if state is not None:
        return state.startswith(_UNREACHABLE_STATES)
    return isinstance(error, OperationalError)


def _note(error: BaseException) -> None:
    if isinstance(error, DBAPIError):
        _log.warning("The database is unreachable (%s); retrying.", reason_of(error))
