"""Cuts the partitions of a backfill into blocks: contiguous clients × consecutive dates.

A run covers a block. Dagster cuts along one dimension, into a run for each client or for each
date, so its cost grows with the number of runs: 100 clients × 90 dates are 90 runs. Clients and
dates are numbers here: their positions among the partition keys.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import ceil

# The first and the last number.
Range = tuple[int, int]

# Half a minute of work. Run monitoring ends a run after two hours (dagster.yaml), which leaves room
# for a slow Email Bison; and a run that is killed leaves little to do again.
MAX_CELLS = 4_000
# Runs are worth starting side by side if each has work: a run's process takes a second of CPU time.
_CELLS_WORTH_A_RUN = 500
_CLIENTS_WORTH_A_RUN = 4
_MAX_SIDE_BY_SIDE = 10


@dataclass(frozen=True, order=True)
class Block:
    """Clients and dates, each from the first to the last."""

    clients: Range
    dates: Range

    @property
    def cells(self) -> int:
        """How many partitions it covers."""
        return _width(self.clients) * _width(self.dates)


def cut(cells: Collection[tuple[int, int]]) -> list[Block]:
    """Blocks that cover exactly these cells (client, date), each once.

    Never more than the runs that Dagster would make, however it cut. Contiguous clients with the
    same dates are merged, or consecutive dates with the same clients, whichever makes fewer. These
    blocks are then divided along their clients, so that runs work side by side and none is much
    larger than MAX_CELLS. A client's facts are one call, whatever the number of its dates.
    """
    by_client = list(_merged(cells))
    by_date = list(_merged((date, client) for client, date in cells))
    # Dagster makes a run for each client of these, or for each date.
    most = min(sum(_width(it[0]) for it in merged) for merged in (by_client, by_date))
    if len(by_client) <= len(by_date):
        found = [Block(clients, dates) for clients, dates in by_client]
    else:
        found = [Block(clients, dates) for dates, clients in by_date]
    return sorted(_divided(found, most, _worth_running(cells)))


def _merged(pairs: Iterable[tuple[int, int]]) -> Iterator[tuple[Range, Range]]:
    """Ranges of the first numbers × ranges of the second ones: those with equal sets are merged."""
    seconds: dict[int, list[int]] = {}
    for first, second in pairs:
        seconds.setdefault(first, []).append(second)
    ranges = {first: tuple(_ranges(sorted(it))) for first, it in sorted(seconds.items())}
    for same, firsts in groupby(ranges, ranges.__getitem__):
        for of_first in _ranges(firsts):
            for of_second in same:
                yield of_first, of_second


def _ranges(numbers: Iterable[int]) -> Iterator[Range]:
    """The ranges of consecutive numbers among these sorted ones."""
    first = last = None
    for number in numbers:
        if first is None or last is None:
            first = number
        elif number != last + 1:
            yield first, last
            first = number
        last = number
    if first is not None and last is not None:
        yield first, last


def _worth_running(cells: Collection[tuple[int, int]]) -> int:
    """How many runs side by side have enough to do."""
    clients = len({client for client, _ in cells})
    worth = min(ceil(clients / _CLIENTS_WORTH_A_RUN), ceil(len(cells) / _CELLS_WORTH_A_RUN))
    return min(worth, _MAX_SIDE_BY_SIDE)


def _divided(blocks: list[Block], most: int, worth: int) -> Iterator[Block]:
    """The blocks, the largest ones divided along their clients; `most` of them at most."""
    parts = dict.fromkeys(blocks, 1)
    divisible = [it for it in blocks if _width(it.clients) > 1]
    for total in range(len(blocks), most):
        largest = max(divisible, key=lambda it: it.cells / parts[it], default=None)
        if largest is None:
            break
        if total >= worth and largest.cells / parts[largest] <= MAX_CELLS:
            break
        parts[largest] += 1
        if parts[largest] == _width(largest.clients):
            divisible.remove(largest)
    for block, count in parts.items():
        first, clients = block.clients[0], _width(block.clients)
        bounds = [first + clients * number // count for number in range(count + 1)]
        for begin, end in pairwise(bounds):
            yield Block((begin, end - 1), block.dates)


def _width(numbers: Range) -> int:
    return numbers[1] - numbers[0] + 1
