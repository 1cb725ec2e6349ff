"""Members of answers that no document names: not believed, not refused, but noticed."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from kpi_pipeline.bison.excerpts import excerpt

# An object that is keyed by ids would have as many "fields" as there are ids.
_MOST_IN_ONE_ANSWER = 20

_noticed: ContextVar[set[str] | None] = ContextVar("noticed", default=None)


@contextmanager
def noticing() -> Iterator[set[str]]:
    """Collect what `notice` is told within the block."""
    fields: set[str] = set()
    token = _noticed.set(fields)
    try:
        yield fields
    finally:
        _noticed.reset(token)


def notice(fields: Iterable[str]) -> None:
    """Tell of unknown members, each by its path in the answer, such as `data[].mood`."""
    if (noticed := _noticed.get()) is None:
        return
    for field in fields:
        if len(noticed) == _MOST_IN_ONE_ANSWER:
            return
        noticed.add(excerpt(field))
