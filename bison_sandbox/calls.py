"""The log of calls, and what slows calls down: the shared bottleneck and each call's latency."""

import math
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Literal

KeyKind = Literal["master", "workspace", "none", "rejected"]

_KEPT = 50_000
_KEY_ID = re.compile(r"(\d{1,12})\|")
_KEY_LIKE = re.compile(r"(\d+)(\||%7C)\w{20,}", re.IGNORECASE)


@dataclass
class Call:
    """One call of the API.

    `status` and `answered_at` are None while it is under way; `answered_at` is the time of the last
    byte of the answer, or of the end without one. `fault` is the kind of fault that it met.
    """

    at: datetime
    method: str
    path: str
    query: str
    key: KeyKind
    key_id: int | None
    workspace_id: int | None = None
    status: int | None = None
    answered_at: datetime | None = None
    fault: str | None = None


class CallLog:
    """The calls since the last reset, in order of arrival; the last 50,000 are kept."""

    def __init__(self) -> None:
        self.total = 0
        self._calls: deque[Call] = deque(maxlen=_KEPT)

    def add(self, call: Call) -> None:
        """Add a new call."""
        call.path, call.query = without_secrets(call.path), without_secrets(call.query)
        self.total += 1
        self._calls.append(call)

    def calls(self) -> list[Call]:
        """The kept calls, oldest first."""
        return list(self._calls)

    def reset(self) -> None:
        """Drop all calls."""
        self.total = 0
        self._calls.clear()


def key_id_of(token: str) -> int | None:
    """The part of a token before its pipe, which is not secret; None without one."""
    found = _KEY_ID.match(token)
    return int(found[1]) if found else None


def without_secrets(text: str) -> str:
    """The text without the secrets of anything that looks like an API key."""
    return _KEY_LIKE.sub(r"\1\2…", text)


SLOW_ONE_IN = 4
SLOW_TIMES = (4.0, 8.0)
_SPREAD = 0.5


class QueueTooLongError(Exception):
    """Too many calls wait for the bottleneck; `retry_after` is in whole seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the bottleneck is busy for {retry_after} s")
        self.retry_after = retry_after


class Bottleneck:
    """The rate limit that all calls of the instance share, spread evenly.

    Observed live: a sync of many clients never ran faster than about 9.5 calls a second, however
    many calls it made concurrently, and calls waited up to half a minute. One that would wait more
    than `longest_wait` seconds is refused. `calls_per_second` 0 is no limit; `clock` counts
    seconds.
    """

    def __init__(
        self,
        calls_per_second: float,
        longest_wait: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._longest_wait = longest_wait
        self._interval = 1 / calls_per_second if calls_per_second else 0.0
        self._clock = clock
        self._next_free = -math.inf

    def reserve_slot(self) -> float:
        """Reserve the next slot; return the seconds until it. Raises QueueTooLongError."""
        now = self._clock()
        slot = max(now, self._next_free)
        wait = slot - now
        if wait > self._longest_wait:
            raise QueueTooLongError(math.ceil(wait))
        self._next_free = slot + self._interval
        return wait


class Latency:
    """Seconds that a call takes besides the bottleneck: log-normal around a mean, from a seed."""

    def __init__(self, mean: float, seed: int) -> None:
        self._mean = mean
        self._chance = Random(f"{seed} latency")  # noqa: S311 - delays, not secrets

    def draw(self, *, slow_tail: bool) -> float:
        """The seconds of one call; with a slow tail, one in four takes 4 to 8 times as long."""
        if not self._mean:
            return 0.0
        seconds = self._mean * self._chance.lognormvariate(-(_SPREAD**2) / 2, _SPREAD)
        if slow_tail and self._chance.random() * SLOW_ONE_IN < 1:
            seconds *= self._chance.uniform(*SLOW_TIMES)
        return seconds
