"""How the partitions of a backfill are cut into runs."""

from collections import Counter
from collections.abc import Collection
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpi_pipeline.orchestration.backfill_blocks import MAX_CELLS, Block, cut

Cells = Collection[tuple[int, int]]


def covered(block: Block) -> list[tuple[int, int]]:
    (first, last), (begin, end) = block.clients, block.dates
    return list(product(range(first, last + 1), range(begin, end + 1)))


def runs_of_dagster(cells: Cells) -> int:
    """The better of its two cuts: a run for each range of each client, or of each date."""
    found = []
    for pairs in (sorted(cells), sorted((date, client) for client, date in cells)):
        starts = [after for before, after in pairwise(pairs) if after != (before[0], before[1] + 1)]
        found.append(1 + len(starts))
    return min(found)


@st.composite
def selections(draw: st.DrawFn) -> set[tuple[int, int]]:
    """What people select: blocks of any size that may overlap, less some cells."""
    cells: set[tuple[int, int]] = set()
    for _ in range(draw(st.integers(1, 4))):
        client, date = draw(st.integers(0, 15)), draw(st.integers(0, 40))
        clients, dates = draw(st.integers(1, 12)), draw(st.integers(1, 30))
        cells |= set(product(range(client, client + clients), range(date, date + dates)))
    holes = draw(st.sets(st.tuples(st.integers(0, 27), st.integers(0, 70)), max_size=20))
    return cells - holes or cells


@given(selections())
def test_each_partition_is_covered_once_and_no_other_by_no_more_runs_than_dagsters(
    cells: set[tuple[int, int]],
) -> None:
    found = cut(cells)
    assert Counter(cell for it in found for cell in covered(it)) == Counter(cells)
    assert len(found) <= runs_of_dagster(cells)


@pytest.mark.parametrize(
    ("clients", "dates", "runs"),
    [
        # A client's month is one run, and so is a small selection of several clients.
        (1, 30, 1),
        (10, 30, 1),
        (3, 10, 1),
        # One date of every client is one run, as it is in Dagster.
        (100, 1, 1),
        (1_000, 2, 2),
        # Enough runs for the cores, and none for a few partitions.
        (26, 30, 2),
        (26, 365, 7),
        (100, 90, 10),
        (100, 365, 10),
        # The size of a run is bounded.
        (1_000, 365, 92),
    ],
)
def test_whole_selections_are_cut_into_few_runs_that_work_side_by_side(
    clients: int, dates: int, runs: int
) -> None:
    found = cut(list(product(range(clients), range(dates))))
    assert len(found) == runs
    # Clients are divided, not dates.
    assert {it.dates for it in found} == {(0, dates - 1)}
    sizes = [it.cells for it in found]
    assert max(sizes) <= MAX_CELLS + dates
    assert max(sizes) - min(sizes) <= dates


def test_clients_with_different_dates_are_cut_the_way_that_takes_fewer_runs() -> None:
    # Five clients of a month, two of them without the 10th day: 7 blocks by client.
    cells = set(product(range(5), range(30))) - {(1, 9), (3, 9)}
    assert cut(cells) == [
        Block((0, 0), (9, 9)),
        Block((0, 4), (0, 8)),
        Block((0, 4), (10, 29)),
        Block((2, 2), (9, 9)),
        Block((4, 4), (9, 9)),
    ]
    # Every second client: neither dates nor clients can be merged across them.
    cells = set(product(range(0, 10, 2), range(30)))
    assert cut(cells) == [Block((it, it), (0, 29)) for it in range(0, 10, 2)]


def test_a_client_that_is_not_contiguous_with_the_others_has_a_run_of_its_own() -> None:
    cells = set(product([0, 1, 2, 7], range(5)))
    assert cut(cells) == [Block((0, 2), (0, 4)), Block((7, 7), (0, 4))]
