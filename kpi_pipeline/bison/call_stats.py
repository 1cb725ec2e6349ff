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
    `waiting_seconds` were spent waiting for a slot, for the master key, and between tries.
    """

    made: int = 0
    waiting_seconds: float = 0.0
    calling_seconds: float = 0.0


_current: ContextVar[CallStats | None] = ContextVar("call_stats", default=None)


@contextmanager
def counting_calls(stats: CallStats) -> Iterator[CallStats]:
    """Add to `stats` what this task spends within the block, and in blocks inside it.

    A context variable keeps tasks apart that share one client.
    """
    outer = _current.get()
    inner = CallStats()
    token = _current.set(inner)
    try:
        yield stats
    finally:
        _current.reset(token)
        for each in (stats, outer):
            if each is not None:
                each.made += inner.made
                each.waiting_seconds += inner.waiting_seconds
                each.calling_seconds += inner.calling_seconds


def note_waiting(seconds: float) -> None:
    """Count time that this task spent without a call."""
    if (stats := _current.get()) is not None:
        stats.waiting_seconds += seconds


@asynccontextmanager
async def waiting_for(slot: AbstractAsyncContextManager[None]) -> AsyncIterator[None]:
    """Enter `slot`, and count the time that takes as waiting."""
    started = time.monotonic()
    async with slot:
        note_waiting(time.monotonic() - started)
        yield


@contextmanager
def calling() -> Iterator[None]:
    """Count one request, and the time of the block as spent in it."""
    started = time.monotonic()
    stats = _current.get()
    if stats is not None:
        stats.made += 1
    try:
        yield
    finally:
        if stats is not None:
            stats.calling_seconds += time.monotonic() - started
