"""Which troubles may pass, and how long to wait for them."""

import logging
import random
from collections.abc import AsyncIterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
import stamina
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from kpi_pipeline.bison.call_stats import note_waiting
from kpi_pipeline.bison.errors import BisonError, RateLimited, Unavailable

TRANSIENT_TROUBLE = (httpx.TransportError, TimeoutError)

_MAX_RETRY_AFTER_SECONDS = 120.0
_MIN_RETRY_AFTER_SECONDS = 1.0

_log = logging.getLogger(__name__)


def is_transient(status: int) -> bool:
    """Whether an HTTP status tells of trouble that may pass: 408, 429 and 5xx, and no other."""
    return status in (408, 429) or 500 <= status <= 599


def tries(attempts: int, *, repeatable: bool = True) -> AsyncIterable[stamina.Attempt]:
    """Tries of one call: at most `attempts`, with growing, jittered pauses between them.

    One that is not `repeatable` is tried again only where it was refused unread (429): one that
    got no answer may have been carried out.
    """
    return stamina.retry_context(
        on=_worth_another_try if repeatable else _refused_unread,
        attempts=attempts,
        timeout=None,
        wait_initial=1.0,
        wait_max=30.0,
        wait_jitter=1.0,
    )


def seconds_to_wait(retry_after: str | None, now: datetime) -> float:
    """How long a 429 asks everybody to wait, in seconds.

    `retry_after` is the header: whole seconds or an HTTP date. At least 1 and at most 120 seconds,
    and up to a second of jitter, so that several machines do not come back at one moment; without
    a header that can be read 45 to 60, as users of the API report.
    """
    asked = _asked_for(retry_after.strip(), now) if retry_after else None
    if asked is None:
        return random.uniform(45, 60)  # noqa: S311 - jitter, not a secret
    bounded = min(max(asked, _MIN_RETRY_AFTER_SECONDS), _MAX_RETRY_AFTER_SECONDS)
    return bounded + random.random()  # noqa: S311 - jitter, not a secret


def _asked_for(retry_after: str, now: datetime) -> float | None:
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    # A date with the zone "-0000" comes back naive, and means UTC.
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds()


def _worth_another_try(error: Exception) -> bool | float:
    return isinstance(error, Unavailable) or _refused_unread(error)


def _refused_unread(error: Exception) -> bool | float:
    # A wait of 0: the pacing was pushed back, and the next turn is the wait.
    return error.alone_seconds if isinstance(error, RateLimited) else False


def _note_retry(details: RetryDetails) -> None:
    note_waiting(details.wait_for)
    error = details.caused_by
    if isinstance(error, BisonError):
        what = f"{error.client}: {error.call} {error.what}"
        _log.warning("%s. Another try follows in %.1f s.", what, details.wait_for)


# stamina's hooks belong to the process. Its own would print to standard output through structlog,
# which Dagster brings, in the middle of what a command prints.
set_on_retry_hooks([_note_retry])
