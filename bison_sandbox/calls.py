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

    `status` and `answered_at` are None while it is under way; `answered_at` is when the last of
    the answer was sent, or when the call ended without one. `fault` is the kind that struck it.
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
    """The calls since the last reset, in the order of their arrival; the last 50,000 are kept."""

    def __init__(self) -> None:
        self.total = 0
        self._calls: deque[Call] = deque(maxlen=_KEPT)

    def add(self, call: Call) -> None:
        """Keep a call that has just arrived."""
        call.path, call.query = without_secrets(call.path), without_secrets(call.query)
        self.total += 1
        self._calls.append(call)

    def calls(self) -> list[Call]:
        """The calls that are kept, first come first."""
        return list(self._calls)

    def reset(self) -> None:
        """Forget all calls."""
        self.total = 0
        self._calls.clear()


def key_id_of(token: str) -> int | None:
    """The part of a token before its pipe, which is no secret; None where there is none."""
    found = _KEY_ID.match(token)
    return int(found[1]) if found else None


def without_secrets(text: str) -> str:
    """The text with the secret of anything that looks like a key left out."""
    return _KEY_LIKE.sub(r"\1\2…", text)


LONGEST_WAIT = 10.0
SLOW_ONE_IN = 4
SLOW_TIMES = (4.0, 8.0)
_SPREAD = 0.5


class QueueTooLongError(Exception):
    """The queue before the bottleneck is too long; `retry_after` is in whole seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the bottleneck is taken for {retry_after} s")
        self.retry_after = retry_after


class Bottleneck:
    """What all calls of the instance share: it lets through so many a second, evenly.

    Observed live: a sync of many clients never ran faster than about 9.5 calls a second, however
    many it made side by side. `calls_per_second` 0 is no limit; `clock` counts seconds.
    """

    def __init__(
        self, calls_per_second: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval = 1 / calls_per_second if calls_per_second else 0.0
        self._clock = clock
        self._next_free = -math.inf

    def take_turn(self) -> float:
        """Join the queue; gives the seconds to wait. Raises QueueTooLongError beyond 10 of them."""
        now = self._clock()
        turn = max(now, self._next_free)
        wait = turn - now
        if wait > LONGEST_WAIT:
            raise QueueTooLongError(math.ceil(wait))
        self._next_free = turn + self._interval
        return wait


class Latency:
    """Seconds that a call takes beside the bottleneck: log-normal around a mean, from a seed."""

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
