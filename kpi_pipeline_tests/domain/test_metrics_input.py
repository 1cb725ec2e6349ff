from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from types import NoneType
from typing import Any

import pytest

from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.domain.columns import FACT_COUNTS
from kpi_pipeline_tests.domain.facts import computed, facts_of, row_of, target_of

DAY = date(2026, 6, 2)


def test_a_day_that_is_in_the_facts_twice_is_refused() -> None:
    facts = [*facts_of([date(2026, 6, 1), DAY]), *facts_of([DAY])]
    with pytest.raises(ValueError, match="acorn-labs on 2026-06-02 is in the facts twice"):
        row_of(facts, DAY)


def test_the_same_day_in_two_workspaces_is_no_duplicate() -> None:
    facts = [*facts_of([DAY], "acorn-labs"), *facts_of([DAY], "birch-co")]
    assert len(computed(facts, [DAY])) == 2


@pytest.mark.parametrize("count", FACT_COUNTS)
@pytest.mark.parametrize("value", [-1, None])
def test_a_negative_or_missing_count_is_refused(count: str, value: int | None) -> None:
    wrong: Mapping[str, Any] = {count: value}
    first, second = facts_of([date(2026, 6, 1), DAY])
    with pytest.raises(ValueError, match="acorn-labs on 2026-06-02 has a negative or missing"):
        row_of([first, replace(second, **wrong)], DAY)


def test_an_as_of_without_a_time_zone_is_refused() -> None:
    naive = facts_of([DAY], as_of=datetime(2026, 6, 3))  # noqa: DTZ001
    with pytest.raises(ValueError, match="acorn-labs on 2026-06-02 has an as_of without"):
        row_of(naive, DAY)


def test_a_missing_as_of_is_refused() -> None:
    first, second = facts_of([date(2026, 6, 1), DAY])
    without = replace(second, as_of=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="acorn-labs on 2026-06-02 has an as_of without"):
        row_of([first, without], DAY)


def test_two_targets_for_the_same_month_are_refused() -> None:
    with pytest.raises(ValueError, match="acorn-labs has two targets from 2020-01-01"):
        row_of(facts_of([DAY]), DAY, [*target_of(40), *target_of(50)])


def test_rows_hold_plain_values_and_none() -> None:
    # The first of these days knows little and the last knows all.
    facts = facts_of(
        days_between(date(2026, 4, 1), date(2026, 5, 31)),
        as_of=datetime(2026, 5, 31, 12, tzinfo=UTC),
    )
    dates = [date(2026, 4, 1), date(2026, 5, 31)]
    rows = [asdict(row) for row in computed(facts, dates, target_of(40, date(2026, 5, 1)))]
    plain = {"workspace": str, "metric_date": date, "as_of": datetime}
    for row in rows:
        for name, value in row.items():
            number = Decimal if name.endswith("_progress") else int
            assert type(value) in {plain.get(name, number), NoneType}, name
            assert value == value, name
    assert rows[0]["positive_replies_last_7_days"] is None
    assert rows[0]["monthly_kpi_target"] is None
    assert None not in rows[1].values()
