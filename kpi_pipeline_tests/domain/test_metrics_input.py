from datetime import UTC, date, datetime
from decimal import Decimal
from types import NoneType

import pandas as pd
import pytest

from kpi_pipeline.domain import columns, metrics
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline_tests.domain.test_metrics import CHICAGO, NO_TARGETS, facts_of, row_of, target_of

DAY = date(2026, 6, 2)


def test_a_day_that_stands_in_the_facts_twice_is_refused() -> None:
    facts = pd.concat([facts_of([date(2026, 6, 1), DAY]), facts_of([DAY])])
    with pytest.raises(ValueError, match="acorn-labs on 2026-06-02 stands in the facts twice"):
        row_of(facts, DAY)


def test_the_same_day_of_two_workspaces_is_no_duplicate() -> None:
    facts = pd.concat([facts_of([DAY], "acorn-labs"), facts_of([DAY], "birch-co")])
    assert len(metrics.compute(facts, NO_TARGETS, [DAY], CHICAGO)) == 2


@pytest.mark.parametrize("count", columns.FACT_COUNTS)
@pytest.mark.parametrize("value", [-1, None])
def test_a_negative_or_missing_count_is_refused(count: str, value: int | None) -> None:
    facts = facts_of([date(2026, 6, 1), DAY]).astype({count: object})
    facts.loc[1, count] = value
    with pytest.raises(ValueError, match="acorn-labs on 2026-06-02 has a negative or missing"):
        row_of(facts, DAY)


@pytest.mark.parametrize("kind", ["object", "datetime64[us]"])
def test_an_as_of_without_a_time_zone_is_refused(kind: str) -> None:
    naive = facts_of([DAY], as_of=datetime(2026, 6, 3)).astype({"as_of": kind})  # noqa: DTZ001
    with pytest.raises(ValueError, match="acorn-labs on 2026-06-02 has an as_of without"):
        row_of(naive, DAY)


@pytest.mark.parametrize("kind", ["object", "datetime64[us, UTC]"])
def test_a_missing_as_of_is_refused(kind: str) -> None:
    facts = facts_of([date(2026, 6, 1), DAY]).astype({"as_of": object})
    facts.loc[1, "as_of"] = pd.NaT
    with pytest.raises(ValueError, match="acorn-labs on 2026-06-02 has an as_of without"):
        row_of(facts.astype({"as_of": kind}), DAY)


def test_two_targets_for_the_same_month_are_refused() -> None:
    with pytest.raises(ValueError, match="acorn-labs has two targets from 2020-01-01"):
        row_of(facts_of([DAY]), DAY, pd.concat([target_of(40), target_of(50)]))


def test_records_hold_plain_values_and_none_but_never_nan() -> None:
    # The first of these days knows little and the last knows all, so columns mix values and NULLs.
    facts = facts_of(
        days_between(date(2026, 4, 1), date(2026, 5, 31)),
        as_of=datetime(2026, 5, 31, 12, tzinfo=UTC),
    )
    dates = [date(2026, 4, 1), date(2026, 5, 31)]
    targets = target_of(40, date(2026, 5, 1))
    rows = metrics.records(metrics.compute(facts, targets, dates, CHICAGO))
    plain = {"workspace": str, "metric_date": date, "as_of": datetime}
    for row in rows:
        for name, value in row.items():
            number = Decimal if name.endswith("_progress") else int
            assert type(value) in {plain.get(name, number), NoneType}, name
            assert value == value, name
    assert rows[0]["positive_replies_last_7_days"] is None
    assert rows[0]["monthly_kpi_target"] is None
    assert None not in rows[1].values()
