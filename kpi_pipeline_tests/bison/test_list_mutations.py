"""However a page of a list is damaged, the list is whole or there is an error, and the walk ends.

The ids are what counts; a name is a label. An id that becomes another well-formed id is left out.
"""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpi_pipeline_tests.bison.damages import JUNK, Body
from kpi_pipeline_tests.bison.mutations import careful, encoded, every_damage, examples
from kpi_pipeline_tests.bison.reading import list_read
from kpi_pipeline_tests.bison.valid_answers import page
from kpi_pipeline_tests.bison.wire import Wire, damaged_bytes, damaged_envelope

IDS = [7, 9, 12]
LAST_PAGE = 2


def whole(number: int) -> Wire:
    return Wire(encoded(page(IDS, number, LAST_PAGE)))


def with_page(spoiled: int, wire: Wire) -> Callable[[int], Wire]:
    return lambda number: wire if number == spoiled else whole(number)


def test_whole_pages_give_the_whole_list() -> None:
    assert list_read(whole) == IDS


@pytest.mark.thorough
@pytest.mark.parametrize("spoiled", [1, 2])
def test_no_damage_to_the_structure_of_a_page_gives_another_list(spoiled: int) -> None:
    for body in examples(every_damage(page(IDS, spoiled, LAST_PAGE))):
        assert list_read(with_page(spoiled, Wire(encoded(body)))) in (IDS, None), body


@pytest.mark.parametrize("damage", [damaged_bytes, damaged_envelope])
@careful
@given(spoiled=st.sampled_from([1, 2]), data=st.data())
def test_no_damage_to_the_bytes_or_the_envelope_of_a_page_gives_another_list(
    damage: Callable[[Body], st.SearchStrategy[Wire]], spoiled: int, data: st.DataObject
) -> None:
    wire = data.draw(damage(page(IDS, spoiled, LAST_PAGE)))
    assert list_read(with_page(spoiled, wire)) in (IDS, None)


@pytest.mark.thorough
@pytest.mark.parametrize("spoiled", [1, 2])
def test_a_page_that_is_cut_off_anywhere_is_an_error(spoiled: int) -> None:
    text = encoded(page(IDS, spoiled, LAST_PAGE))
    for length in examples(range(len(text))):
        assert list_read(with_page(spoiled, Wire(text[:length]))) is None, text[:length]


@pytest.mark.parametrize("spoiled", [1, 2])
@pytest.mark.parametrize("lost", [[0], [1], [0, 1]])
def test_a_page_that_lost_entries_is_an_error(spoiled: int, lost: list[int]) -> None:
    body = page(IDS, spoiled, LAST_PAGE)
    kept = [row for place, row in enumerate(body["data"]) if place not in lost]
    if kept != body["data"]:
        wire = Wire(encoded(body | {"data": kept}))
        assert list_read(with_page(spoiled, wire)) is None


@pytest.mark.parametrize("member", ["current_page", "last_page", "total", "per_page", "from", "to"])
def test_the_same_damage_on_every_page_makes_no_walk_without_end(member: str) -> None:
    for junk in [*JUNK, 0, "0"]:

        def spoiled(number: int, junk: Body = junk) -> Wire:
            body = page(IDS, number, LAST_PAGE)
            return Wire(encoded(body | {"meta": body["meta"] | {member: junk}}))

        assert list_read(spoiled) in (IDS, None), junk
