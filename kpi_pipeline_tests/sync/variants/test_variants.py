"""Each switch of Email Bison, against what is stored afterwards and what the error says."""

from collections.abc import Iterable, Sequence

import pytest

from kpi_pipeline_tests.sync.support import Agency, of_clients
from kpi_pipeline_tests.sync.variants import (
    bodies,
    edits,
    keys,
    master_key,
    plans_and_users,
    statuses,
    switch_cases,
)
from kpi_pipeline_tests.sync.variants.cases import Case, Scene
from kpi_pipeline_tests.sync.variants.checks import (
    DATES,
    Right,
    assert_right,
    assert_told,
    everything,
    sync_under,
    what_is_right,
)

CASES = [
    *switch_cases.CASES,
    *statuses.CASES,
    *bodies.CASES,
    *edits.COUNTS,
    *edits.SHAPES,
    *plans_and_users.CASES,
    *keys.CASES,
    *master_key.CASES,
]
FIRST_NIGHTS = [
    *switch_cases.CASES,
    *bodies.CASES,
    *edits.SHAPES,
    *plans_and_users.CASES,
    *keys.CASES,
]


def rows(cases: Iterable[Case]) -> Sequence[object]:
    return [
        pytest.param(case, id=case.name, marks=[pytest.mark.waits] if case.slow else [])
        for case in cases
    ]


@pytest.mark.parametrize("case", rows(CASES))
def test_a_switch_leaves_the_right_rows_or_those_that_were_there(
    case: Case, an_hour_later: Agency, right: Right
) -> None:
    scene = Scene(an_hour_later, case.whose)
    before = everything(scene.agency)
    assert all(before.values())
    numbers = right.at(scene.agency, DATES, scene.clients)

    outcomes = sync_under(case, scene, DATES)

    assert_told(case, scene, outcomes)
    after = everything(scene.agency)
    if case.days_move:
        moved = what_is_right(scene.agency, DATES, scene.clients)
        assert moved != numbers
        numbers = moved
    untouched = scene.victims if case.said else []
    assert of_clients(after, untouched) == of_clients(before, untouched)
    assert_right(scene.agency, numbers, [it for it in scene.clients if it not in untouched])


@pytest.mark.parametrize("case", rows(case for case in FIRST_NIGHTS if case.said))
def test_a_switch_that_fails_a_first_night_leaves_no_row_and_no_zero(
    case: Case, first_night: Agency, right: Right
) -> None:
    scene = Scene(first_night, case.whose)
    numbers = right.at(scene.agency, DATES, scene.clients)

    outcomes = sync_under(case, scene, DATES)

    assert_told(case, scene, outcomes)
    assert not any(of_clients(everything(scene.agency), scene.victims).values())
    assert_right(scene.agency, numbers, scene.spared)
