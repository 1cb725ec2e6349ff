"""Counts the requests that a piece of work sends, those of a failed reading included."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class CallCount:
    """How many requests were sent, retries included."""

    made: int = 0


_counting: ContextVar[CallCount | None] = ContextVar("counting", default=None)


@contextmanager
def counted_calls(count: CallCount) -> Iterator[CallCount]:
    """Add to `count` each request that this task sends within the block, one of its own or of a
    block inside it.

    A context variable keeps apart what tasks side by side send on one client.
    """
    outer, already = _counting.get(), count.made
    token = _counting.set(count)
    try:
        yield count
    finally:
        _counting.reset(token)
        if outer is not None:
            outer.made += count.made - already


def note_call() -> None:
    """Count one request for whoever counts in this task."""
    if (count := _counting.get()) is not None:
        count.made += 1
