import math
import time
from collections.abc import Callable
from random import Random

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
