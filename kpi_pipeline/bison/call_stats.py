"""What a piece of work cost at Email Bison: requests, and the time spent waiting and in calls."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class CallStats:
    """Requests sent, retries included, and seconds.

    `calling_seconds` lie between sending a request and the last byte of its answer;
    `waiting_seconds` were spent on a turn to send, on the master key, and between tries.
    """

    made: int = 0
    waiting_seconds: float = 0.0
    calling_seconds: float = 0.0


_tallying: ContextVar[CallStats | None] = ContextVar("tallying", default=None)


@contextmanager
def counting_calls(tally: CallStats) -> Iterator[CallStats]:
    """Add to `tally` what this task spends within the block, in it or in a block inside it.

    A context variable keeps apart what tasks side by side do on one client.
    """
    outer = _tallying.get()
    inner = CallStats()
    token = _tallying.set(inner)
    try:
        yield tally
    finally:
        _tallying.reset(token)
        for each in (tally, outer):
            if each is not None:
                each.made += inner.made
                each.waiting_seconds += inner.waiting_seconds
                each.calling_seconds += inner.calling_seconds


def note_waiting(seconds: float) -> None:
    """Count time that passed without a call, for whoever tallies in this task."""
    if (tally := _tallying.get()) is not None:
        tally.waiting_seconds += seconds


@asynccontextmanager
async def waiting_for(turn: AbstractAsyncContextManager[None]) -> AsyncIterator[None]:
    """Enter `turn`, and count how long that took as waiting."""
    started = time.monotonic()
    async with turn:
        note_waiting(time.monotonic() - started)
        yield


@contextmanager
def calling() -> Iterator[None]:
    """Count one request, and the block's time as spent in it."""
    started = time.monotonic()
    tally = _tallying.get()
    if tally is not None:
        tally.made += 1
    try:
        yield
    finally:
        if tally is not None:
            tally.calling_seconds += time.monotonic() - started
