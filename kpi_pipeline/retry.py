"""The one retry policy: the pauses between tries, and when to give up.

Built on tenacity. The caller says which errors are transient: `bison/calls.py` for HTTP calls,
`db/server/retry.py` for PostgreSQL. No setting here belongs to the whole process.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

_MAX_RETRY_AFTER_SECONDS = 120.0
_MIN_RETRY_AFTER_SECONDS = 1.0

T = TypeVar("T")
IsTransient = Callable[[BaseException], bool]


@dataclass(frozen=True)
class Backoff:
    """Growing pauses between tries, in seconds. The pause after try number n = 1, 2, … is

        min(first * 2 ** (n - 1), longest) + random(0, jitter)

    The jitter spreads callers that failed at the same moment.
    """

    first: float
    longest: float
    jitter: float

    def pause(self, state: RetryCallState) -> float:
        """The pause after the try that `state` describes; a `wait` of tenacity."""
        growing = wait_exponential(multiplier=self.first, max=self.longest)
        return (growing + wait_random(0, self.jitter))(state)


def async_tries(
    attempts: int,
    backoff: Backoff,
    is_transient: IsTransient,
    *,
    asked_pause: Callable[[BaseException], float | None],
    before_pause: Callable[[BaseException, float], None],
) -> AsyncRetrying:
    """At most `attempts` tries: `async for attempt in async_tries(…): with attempt: …`.

    A transient error is followed by another try, after `asked_pause(error)` seconds, or after the
    backoff where that is None. Any other error is raised at once, as it is; so is the last one.
    `before_pause` is called with the error and the seconds of each pause.
    """

    def wait(state: RetryCallState) -> float:
        asked = asked_pause(_error(state))
        return backoff.pause(state) if asked is None else asked

    def note(state: RetryCallState) -> None:
        before_pause(_error(state), state.upcoming_sleep)

    return AsyncRetrying(
        sleep=asyncio.sleep,
        stop=stop_after_attempt(attempts),
        wait=wait,
        retry=retry_if_exception(is_transient),
        before_sleep=note,
        reraise=True,
    )


def retry_for(
    seconds: float,
    work: Callable[[], T],
    backoff: Backoff,
    is_transient: IsTransient,
    *,
    before_first_pause: Callable[[BaseException], None],
) -> T:
    """Do `work`, and all of it again after each transient error.

    No further try begins once `seconds` have passed since the first error: the time that the work
    itself took does not count. Any other error is raised at once, as it is; so is the last one.
    """
    deadline: float | None = None

    def is_over(_: RetryCallState) -> bool:
        nonlocal deadline
        now = time.monotonic()
        if deadline is None:
            deadline = now + seconds
        return now >= deadline

    def note(state: RetryCallState) -> None:
        if state.attempt_number == 1:
            before_first_pause(_error(state))

    retrying = Retrying(
        stop=is_over,
        wait=backoff.pause,
        retry=retry_if_exception(is_transient),
        before_sleep=note,
        reraise=True,
    )
    return retrying(work)


def is_transient_status(status: int) -> bool:
    """Whether an HTTP status stands for a transient error: 408, 429, 5xx, and no other."""
    return status in (408, 429) or 500 <= status <= 599


def retry_after_seconds(header: str | None, now: datetime) -> float:
    """How many seconds to wait after a 429 with this Retry-After header.

        min(max(asked, 1), 120) + random(0, 1)

    where `asked` is the header: whole seconds, or the time until its HTTP date. Without a header
    that can be read it is random(45, 60), as users of Email Bison's API report.
    """
    asked = _asked_seconds(header.strip(), now) if header else None
    if asked is None:
        return random.uniform(45, 60)  # noqa: S311 - jitter, not a secret
    bounded = min(max(asked, _MIN_RETRY_AFTER_SECONDS), _MAX_RETRY_AFTER_SECONDS)
    return bounded + random.random()  # noqa: S311 - jitter, not a secret


def _asked_seconds(header: str, now: datetime) -> float | None:
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    # A date with the zone "-0000" comes back naive, and means UTC.
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds()


def _error(state: RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome else None
    if error is None:
        raise AssertionError("tenacity asks about a pause after a failed try alone")
    return error
