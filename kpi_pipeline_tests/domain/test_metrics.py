import random
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import NoneType
from typing import Any

import pytest

from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.domain.columns import FACT_COUNTS, METRIC_COLUMNS, PERCENTAGES
from kpi_pipeline.domain.metrics import ComputedRow, compute
from kpi_pipeline_tests.domain.facts import (
    CHICAGO,
    LONG_AFTER,
    computed,
    facts_of,
    row_of,
    target_of,
)


def test_each_number_is_taken_from_its_own_count_and_window() -> None:
    facts = facts_of(
        days_between(date(2026, 5, 1), date(2026, 6, 30)),
        sent=1000,
        replied=100,
        interested=10,
        bounced=5,
        unsubscribed=2,
    )
    assert row_of(facts, date(2026, 6, 10), target_of(400, sending=25_000)) == {
        "workspace": "acorn-labs",
        "metric_date": date(2026, 6, 10),
        "emails_sent_mtd": 10_000,
        "positive_replies_mtd": 100,
        "all_replies_mtd": 1000,
        "bounced_mtd": 50,
        "unsubscribed_mtd": 20,
        "emails_sent_today": 1000,
        "positive_replies_today": 10,
        "emails_sent_last_7_days": 7000,
        "emails_sent_last_14_days": 14_000,
        "emails_sent_last_30_days": 30_000,
        "positive_replies_last_7_days": 70,
        "positive_replies_last_14_days": 140,
        "positive_replies_last_30_days": 300,
        "positive_replies_last_month": 310,
        "positive_replies_current_month": 100,
        "projection_positive_replies_eom": 300,
        "projection_emails_eom": 30_000,
        "mtd_leads_progress": Decimal("25.00"),
        "projection_replies_progress": Decimal("75.00"),
        "last_week_vs_week_before_progress": Decimal("0.00"),
        "sending_progress": Decimal("40.00"),
        "projection_sending_progress": Decimal("120.00"),
        "reply_rate_mtd": Decimal("10.00"),
        "positive_rate_mtd": Decimal("1.00"),
        "bounce_rate_mtd": Decimal("0.50"),
        "monthly_kpi_target": 400,
        "monthly_sending_target": 25_000,
        "as_of": LONG_AFTER,
    }


@pytest.mark.parametrize("age", [0, 6, 7, 13, 14, 29, 30])
def test_last_n_days_are_exactly_n_days_and_the_week_before_is_as_long(age: int) -> None:
    day = date(2026, 6, 10)
    days = dict.fromkeys(days_between(date(2026, 5, 1), day), 0)
    row = row_of(facts_of(days | {day - timedelta(days=age): 4}), day)
    for length in (7, 14, 30):
        assert row[f"positive_replies_last_{length}_days"] == (4 if age < length else 0)
    lost_all = Decimal("-100.00") if 7 <= age < 14 else None
    assert row["last_week_vs_week_before_progress"] == lost_all


@pytest.mark.parametrize(
    ("day", "this_month", "last_month"),
    [
        (date(2026, 1, 1), 1, 31),
        (date(2026, 1, 31), 31, 31),
        (date(2026, 2, 28), 28, 31),
        (date(2024, 2, 29), 29, 31),
        (date(2028, 2, 29), 29, 31),
        (date(2100, 2, 28), 28, 31),
        (date(2026, 3, 31), 31, 28),
        (date(2024, 3, 1), 1, 29),
        (date(2026, 4, 30), 30, 31),
        (date(2026, 5, 15), 15, 30),
    ],
)
def test_a_month_runs_from_its_first_day_and_last_month_is_the_whole_one_before(
    day: date, this_month: int, last_month: int
) -> None:
    row = row_of(facts_of(days_between(day - timedelta(days=70), day)), day)
    assert row["positive_replies_mtd"] == this_month
    assert row["positive_replies_current_month"] == this_month
    assert row["positive_replies_last_month"] == last_month


def test_on_1_january_last_month_is_december_alone() -> None:
    november = dict.fromkeys(days_between(date(2025, 11, 1), date(2025, 11, 30)), 1000)
    december = dict.fromkeys(days_between(date(2025, 12, 1), date(2025, 12, 31)), 2)
    row = row_of(facts_of(november | december | {date(2026, 1, 1): 5}), date(2026, 1, 1))
    assert row["positive_replies_last_month"] == 62
    assert row["positive_replies_mtd"] == 5


MONTH = {
    "emails_sent_mtd",
    "positive_replies_mtd",
    "all_replies_mtd",
    "bounced_mtd",
    "unsubscribed_mtd",
    "positive_replies_current_month",
    "projection_positive_replies_eom",
    "projection_emails_eom",
    "mtd_leads_progress",
    "projection_replies_progress",
    "sending_progress",
    "projection_sending_progress",
    "reply_rate_mtd",
    "positive_rate_mtd",
    "bounce_rate_mtd",
}
LAST_7 = {"emails_sent_last_7_days", "positive_replies_last_7_days"}
LAST_14 = {
    "emails_sent_last_14_days",
    "positive_replies_last_14_days",
    "last_week_vs_week_before_progress",
}
LAST_30 = {"emails_sent_last_30_days", "positive_replies_last_30_days"}
LAST_MONTH = {"positive_replies_last_month"}


@pytest.mark.parametrize(
    ("missing", "unknown"),
    [
        (date(2026, 6, 17), MONTH | LAST_7 | LAST_14 | LAST_30),
        (date(2026, 6, 14), MONTH | LAST_7 | LAST_14 | LAST_30),
        (date(2026, 6, 13), MONTH | LAST_14 | LAST_30),
        (date(2026, 6, 7), MONTH | LAST_14 | LAST_30),
        (date(2026, 6, 1), MONTH | LAST_30),
        (date(2026, 5, 22), LAST_30 | LAST_MONTH),
        (date(2026, 5, 21), LAST_MONTH),
        (date(2026, 5, 1), LAST_MONTH),
        (date(2026, 4, 30), set()),
        (date(2026, 6, 21), set()),
    ],
)
def test_a_missing_day_makes_its_windows_null_and_no_others(
    missing: date, unknown: set[str]
) -> None:
    days = days_between(date(2026, 4, 25), date(2026, 6, 25))
    facts = facts_of([day for day in days if day != missing])
    row = row_of(facts, date(2026, 6, 20), target_of(50, sending=900))
    assert {name for name, value in row.items() if value is None} == unknown


def test_windows_that_begin_before_the_first_fact_are_null() -> None:
    facts = facts_of(days_between(date(2026, 6, 14), date(2026, 6, 20)))
    row = row_of(facts, date(2026, 6, 20), target_of(50, sending=900))
    unknown = {name for name, value in row.items() if value is None}
    assert unknown == MONTH | LAST_14 | LAST_30 | LAST_MONTH
    assert row["positive_replies_last_7_days"] == 7


def test_days_of_one_workspace_never_count_for_another() -> None:
    june = days_between(date(2026, 6, 1), date(2026, 6, 30))
    facts = [
        *facts_of(june, "birch-co"),
        *facts_of([day for day in june if day.day != 3], "acorn-labs"),
        *facts_of(june[4:], "cedar-inc", interested=9),
    ]
    rows = computed(facts, june[4:6])
    assert [(row.workspace, row.metric_date, row.positive_replies_mtd) for row in rows] == [
        ("acorn-labs", june[4], None),
        ("acorn-labs", june[5], None),
        ("birch-co", june[4], 5),
        ("birch-co", june[5], 6),
        ("cedar-inc", june[4], None),
        ("cedar-inc", june[5], None),
    ]


def test_a_date_without_facts_of_its_own_gives_no_row() -> None:
    facts = facts_of([date(2026, 6, 1), date(2026, 6, 3)])
    rows = computed(facts, days_between(date(2026, 5, 30), date(2026, 6, 4)))
    assert [row.metric_date for row in rows] == [date(2026, 6, 1), date(2026, 6, 3)]


def test_an_unfetched_day_counts_in_its_own_row_and_is_unknown_to_all_others() -> None:
    unfetched = date(2026, 6, 2)
    facts = facts_of([date(2026, 6, 1), date(2026, 6, 3)])
    alone = facts_of([unfetched], sent=0, interested=2, as_of=datetime(2026, 6, 2, 5, tzinfo=UTC))
    dates = days_between(date(2026, 6, 1), date(2026, 6, 3))
    rows = compute(facts, [], dates, CHICAGO, unfetched=alone)
    assert [row.positive_replies_mtd for row in rows] == [1, 3, None]
    assert [row.emails_sent_mtd for row in rows] == [100, 100, None]
    assert compute([], [], dates, CHICAGO, unfetched=alone)[0].positive_replies_today == 2


def test_without_emails_the_rates_are_null() -> None:
    row = row_of(facts_of(days_between(date(2026, 6, 1), DAY), sent=0), DAY)
    assert [row[f"{it}_rate_mtd"] for it in ("reply", "positive", "bounce")] == [None] * 3
    assert row["all_replies_mtd"] == 20


def test_the_order_of_facts_and_dates_does_not_matter() -> None:
    days = days_between(date(2026, 5, 1), date(2026, 6, 10))
    facts = [fact for name in ("b", "a") for fact in facts_of({day: day.day for day in days}, name)]
    shuffled = random.Random(7).sample(facts, len(facts))
    rows = computed(facts, days)
    assert rows == computed(shuffled, [*days[::-1], days[0]])
    assert len(rows) == 2 * len(days)


def test_the_row_carries_the_as_of_of_its_own_day_in_utc() -> None:
    local = datetime(2026, 6, 2, 9, 30, tzinfo=CHICAGO)
    facts = [*facts_of([date(2026, 6, 1)]), *facts_of([date(2026, 6, 2)], as_of=local)]
    as_of = row_of(facts, date(2026, 6, 2))["as_of"]
    assert as_of == datetime(2026, 6, 2, 14, 30, tzinfo=UTC)
    assert as_of.tzinfo is UTC


@pytest.mark.parametrize("microsecond", [0, 1, 999_999])
def test_a_fraction_of_a_second_in_as_of_makes_no_difference(microsecond: int) -> None:
    day = date(2026, 6, 2)
    as_of = datetime(2026, 6, 2, 17, 0, 0, microsecond, tzinfo=UTC)
    row = row_of(facts_of([date(2026, 6, 1), day], as_of=as_of, sent=10**9), day)
    assert row["as_of"] == as_of
    assert row["projection_positive_replies_eom"] == 40
    assert row["projection_emails_eom"] == 40 * 10**9


def test_a_row_has_the_columns_of_the_table_in_their_order() -> None:
    assert [field.name for field in fields(ComputedRow)] == [
        *("workspace", "metric_date"),
        *METRIC_COLUMNS,
        *("monthly_kpi_target", "monthly_sending_target", "as_of"),
    ]


def test_without_facts_there_are_no_rows() -> None:
    assert computed([], [date(2026, 6, 1)], target_of(50)) == []


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
    rows = [
        asdict(row) for row in computed(facts, dates, target_of(40, date(2026, 5, 1), sending=9))
    ]
    plain = {"workspace": str, "metric_date": date, "as_of": datetime}
    for row in rows:
        for name, value in row.items():
            number = Decimal if name in PERCENTAGES else int
            assert type(value) in {plain.get(name, number), NoneType}, name
            assert value == value, name
    assert rows[0]["positive_replies_last_7_days"] is None
    assert rows[0]["monthly_kpi_target"] is None
    assert None not in rows[1].values()
