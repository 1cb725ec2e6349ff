from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Literal
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine

from kpi_pipeline.db.facts import (
    SendingPlan,
    read_facts,
    read_targets,
    store_facts,
    store_plan,
)
from kpi_pipeline.db.metrics import (
    DayNumbers,
    read_day_numbers,
    read_numbers_of,
)
from kpi_pipeline.db.recompute import write_rows
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.tables import client_metrics, kpi_projections
from kpi_pipeline.domain.calendar import days_between, fetch_period
from kpi_pipeline.domain.columns import PARTITION_COLUMNS
from kpi_pipeline.domain.metrics import compute
from kpi_pipeline.errors import KpiError
from kpi_pipeline_tests.db.stocked import (
    AS_OF,
    TODAY,
    day,
    imported,
    record,
    rows_of,
    stock_facts,
)

CHICAGO = ZoneInfo("America/Chicago")
YESTERDAY = TODAY - timedelta(days=1)


@pytest.fixture(autouse=True)
def _two_clients(engine: Engine, vault: Vault) -> None:
    imported(engine, vault, record(101, "Harbor", display_name="HB"), record(102, "Quay"))


def compute_and_publish(
    engine: Engine,
    dates: Sequence[date],
    workspace: str = "harbor",
    source: Literal["sync", "webhook"] = "sync",
) -> Sequence[Mapping[str, Any]]:
    with engine.begin() as connection:
        write_rows(connection, {workspace: dates}, CHICAGO, source)
        return rows_of(connection, client_metrics)


def test_the_stored_numbers_are_those_that_compute_returns(engine: Engine) -> None:
    dates = days_between(date(2026, 2, 25), TODAY)
    first, last = fetch_period(dates[0], dates[-1])
    with engine.begin() as connection:
        for number, it in enumerate(days_between(first, last)):
            store_facts(connection, "harbor", {it: day(sent=90 + number, interested=it.day)}, AS_OF)
        stock_facts(connection, "quay", first, last)
        facts = read_facts(connection, ["harbor"], first, last)
        targets = read_targets(connection, ["harbor"])
    expected = [asdict(row) for row in compute(facts, targets, dates, CHICAGO)]
    rows = compute_and_publish(engine, dates)
    assert len(rows) == len(dates) == len(expected)
    with engine.connect() as connection:
        assert without_updated_at(rows_of(connection, kpi_projections)) == expected
    for row, numbers in zip(rows, expected, strict=True):
        assert {name: row[name] for name in numbers} == numbers
    assert rows[-1]["positive_replies_mtd"] == sum(range(1, 19))


def without_updated_at(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in row if name != "updated_at"} for row in rows]


def test_computing_twice_changes_nothing_but_updated_at(engine: Engine) -> None:
    with engine.begin() as connection:
        stock_facts(connection, "harbor")
    first = compute_and_publish(engine, [YESTERDAY, TODAY])
    second = compute_and_publish(engine, [YESTERDAY, TODAY])
    assert without_updated_at(first) == without_updated_at(second)
    for before, after in zip(first, second, strict=True):
        assert before["updated_at"] < after["updated_at"]


def test_a_row_is_replaced_by_what_the_new_facts_give(engine: Engine) -> None:
    with engine.begin() as connection:
        stock_facts(connection, "harbor", interested=3)
    [before] = compute_and_publish(engine, [TODAY], source="webhook")
    with engine.begin() as connection:
        stock_facts(connection, "harbor", YESTERDAY, YESTERDAY, interested=1)
    [after] = compute_and_publish(engine, [TODAY], source="sync")
    assert (before["positive_replies_mtd"], after["positive_replies_mtd"]) == (54, 52)
    assert (before["source"], after["source"]) == ("webhook", "sync")


def test_other_dates_and_other_clients_keep_their_rows(engine: Engine) -> None:
    with engine.begin() as connection:
        stock_facts(connection, "harbor")
        stock_facts(connection, "quay", sent=7)
    compute_and_publish(engine, [YESTERDAY, TODAY])
    before = compute_and_publish(engine, [TODAY], "quay")
    after = compute_and_publish(engine, [TODAY])
    assert [(it["workspace"], it["metric_date"]) for it in after] == [
        ("harbor", YESTERDAY),
        ("harbor", TODAY),
        ("quay", TODAY),
    ]
    assert (after[0], after[2]) == (before[0], before[2])


def test_a_row_carries_both_labels_and_its_fixed_columns(engine: Engine) -> None:
    with engine.begin() as connection:
        stock_facts(connection, "harbor")
        stock_facts(connection, "quay")
    compute_and_publish(engine, [TODAY])
    harbor, quay = compute_and_publish(engine, [TODAY], "quay")
    assert (harbor["workspace_name"], harbor["display_name"]) == ("Harbor", "HB")
    assert (quay["workspace_name"], quay["display_name"]) == ("Quay", "Quay")
    assert (harbor["metric_type"], harbor["as_of"]) == ("mtd", AS_OF)


def test_a_new_label_reaches_the_row_when_it_is_written_again(engine: Engine, vault: Vault) -> None:
    with engine.begin() as connection:
        stock_facts(connection, "harbor")
    compute_and_publish(engine, [TODAY])
    imported(engine, vault, record(101, "Seaside"))
    with engine.begin() as connection:
        write_rows(connection, {"harbor": [TODAY]}, CHICAGO, "sync")
        [row] = rows_of(connection, client_metrics)
    assert (row["workspace"], row["workspace_name"], row["display_name"]) == (
        "harbor",
        "Seaside",
        "Seaside",
    )


def test_a_sending_plan_is_on_the_row_of_its_own_day_alone(engine: Engine) -> None:
    with engine.begin() as connection:
        stock_facts(connection, "harbor")
        store_plan(connection, "harbor", SendingPlan(TODAY, 320, 350, AS_OF))
        store_plan(connection, "quay", SendingPlan(YESTERDAY, 1, 2, AS_OF))
    yesterday, today = compute_and_publish(engine, [YESTERDAY, TODAY])
    plan = ("emails_scheduled_today", "emails_scheduled_tomorrow")
    assert [today[name] for name in plan] == [320, 350]
    assert [yesterday[name] for name in plan] == [None, None]


def test_a_window_with_a_day_that_was_never_fetched_is_null_and_no_zero(engine: Engine) -> None:
    with engine.begin() as connection:
        stock_facts(connection, "harbor", without=[date(2026, 3, 8)])
    [row] = compute_and_publish(engine, [TODAY])
    assert row["positive_replies_last_7_days"] == 21
    for name in ("positive_replies_last_14_days", "positive_replies_mtd", "mtd_leads_progress"):
        assert row[name] is None


def test_not_a_number_never_reaches_the_table(engine: Engine, vault: Vault) -> None:
    imported(engine, vault, record(101, "Harbor", monthly_kpi_target=0))
    with engine.begin() as connection:
        stock_facts(connection, "harbor", date(2026, 3, 16), TODAY, interested=0)
        stock_facts(connection, "quay", interested=0)
    compute_and_publish(engine, [date(2026, 3, 16), TODAY])
    harbor, _, quay = compute_and_publish(engine, [TODAY], "quay")
    assert (harbor["monthly_kpi_target"], harbor["mtd_leads_progress"]) == (0, None)
    assert quay["last_week_vs_week_before_progress"] is None
    with engine.connect() as connection:
        for table in (kpi_projections, client_metrics):
            for row in rows_of(connection, table):
                decimals = [value for value in row.values() if isinstance(value, Decimal)]
                assert all(value.is_finite() for value in decimals)


def test_growth_above_a_thousand_percent_is_stored(engine: Engine) -> None:
    with engine.begin() as connection:
        stock_facts(connection, "harbor", interested=0)
        stock_facts(connection, "harbor", date(2026, 3, 11), date(2026, 3, 11), interested=1)
        stock_facts(connection, "harbor", TODAY, TODAY, interested=20_000)
    [row] = compute_and_publish(engine, [TODAY])
    assert row["last_week_vs_week_before_progress"] == Decimal("1999900.00")


NEVER_FETCHED = days_between(date(2026, 3, 10), date(2026, 3, 14))


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        (NEVER_FETCHED[:1], "2026-03-10"),
        (NEVER_FETCHED[:3], "2026-03-10, 2026-03-11, 2026-03-12"),
        (NEVER_FETCHED[:4], "2026-03-10, 2026-03-11, 2026-03-12 and 1 more"),
        (NEVER_FETCHED, "2026-03-10, 2026-03-11, 2026-03-12 and 2 more"),
    ],
)
def test_dates_without_facts_are_named_and_nothing_is_written(
    engine: Engine, missing: list[date], named: str
) -> None:
    with engine.begin() as connection:
        stock_facts(connection, "harbor", without=missing)
        stock_facts(connection, "quay")
        with pytest.raises(KpiError) as refused:
            write_rows(
                connection, {"harbor": days_between(date(2026, 3, 10), TODAY)}, CHICAGO, "sync"
            )
        assert rows_of(connection, kpi_projections) == []
    command = f"kpi backfill --from {missing[0]} --to {missing[-1]} -w harbor"
    expected = f"harbor has no facts of {named}. Fill them with `{command}`, or select"
    assert str(refused.value).startswith(expected)


def test_a_day_has_the_numbers_of_its_row_and_what_was_fetched_of_it(engine: Engine) -> None:
    with engine.begin() as connection:
        stock_facts(connection, "harbor", sent=80, interested=2)
        stock_facts(connection, "quay")
    (row,) = compute_and_publish(engine, [TODAY])
    with engine.begin() as connection:
        found = read_day_numbers(connection, "harbor", [YESTERDAY, TODAY])
        assert read_numbers_of(connection, [("harbor", TODAY), ("quay", TODAY)]) == {
            ("harbor", TODAY): found[TODAY]
        }
    assert found == {
        TODAY: DayNumbers(
            workspace="harbor",
            date=TODAY,
            client="HB",
            instance="main",
            metrics=tuple(row[name] for name in PARTITION_COLUMNS),
            as_of=AS_OF,
            facts=(80, 10, 2, 5, 2),
            facts_as_of=AS_OF,
        )
    }
    assert row["positive_replies_mtd"] == 36
