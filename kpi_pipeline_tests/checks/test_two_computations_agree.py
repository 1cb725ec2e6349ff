"""Random inputs give the same rows in Python, which stores them, and in SQL, which checks them."""

import random
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine

from kpi_pipeline.domain.calendar import day_start, days_between
from kpi_pipeline.domain.columns import FACT_COUNTS
from kpi_pipeline_tests.checks import rows
from kpi_pipeline_tests.checks.rows import ONE_DAY

# In some zones midnight is skipped or comes twice, or the change is of half an hour.
ZONES = [
    "America/Chicago",
    "America/Havana",
    "America/Santiago",
    "Africa/Cairo",
    "Atlantic/Azores",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "Pacific/Kiritimati",
    "UTC",
]
# Ends and firsts of months, of a year and of a February; days on which clocks change.
DAYS = [
    date(2024, 2, 29),
    date(2024, 3, 31),
    date(2025, 3, 9),
    date(2025, 3, 30),
    date(2025, 4, 6),
    date(2025, 4, 25),
    date(2025, 9, 7),
    date(2025, 10, 26),
    date(2025, 10, 31),
    date(2025, 11, 2),
    date(2026, 1, 1),
    date(2026, 2, 28),
    date(2026, 3, 1),
    date(2026, 3, 31),
    date(2026, 7, 15),
]


@dataclass(frozen=True)
class Case:
    """What decides between cases; mere counts and times come from the seed."""

    zone: str
    today: date
    # Days ago.
    first_fact: int
    missing: set[int]
    events: list[tuple[int, str, str]]
    targets: dict[int, tuple[int | None, int | None]]
    most: int
    seed: int


CASES = st.builds(
    Case,
    zone=st.sampled_from(ZONES),
    today=st.builds(lambda day, n: day + n * ONE_DAY, st.sampled_from(DAYS), st.integers(0, 2)),
    first_fact=st.sampled_from([125, 61, 31, 3]),
    missing=st.sets(st.integers(0, 70), max_size=4),
    events=st.lists(
        st.tuples(
            st.integers(0, 70),
            st.sampled_from(FACT_COUNTS),
            st.sampled_from(["applied", "applied", "applied", "received"]),
        ),
        max_size=12,
    ),
    targets=st.dictionaries(
        st.integers(0, 3),
        st.tuples(
            st.sampled_from([None, 0, 1, 7, 300]), st.sampled_from([None, 0, 3, 9_999, 2**31 - 1])
        ),
    ),
    most=st.sampled_from([1, 3, 20_000, 1_000_000]),
    seed=st.integers(0, 2**32),
)


def instant_of(chance: random.Random, day: date, zone: ZoneInfo) -> datetime:
    """From six hours before the day to two days after its start, on the hour or not."""
    passed = timedelta(hours=chance.randint(-6, 48))
    if chance.random() < 0.5:
        passed += timedelta(microseconds=chance.randint(0, 3_599_999_999))
    return day_start(day, zone) + passed


def store(connection: Connection, case: Case) -> None:
    """Two clients with facts, events, targets and plans, and most of the rows that follow."""
    chance, zone = random.Random(case.seed), ZoneInfo(case.zone)
    missing = [case.today - n * ONE_DAY for n in case.missing]
    days = days_between(case.today - case.first_fact * ONE_DAY, case.today)
    as_of = {day: instant_of(chance, day, zone) for day in days if day not in missing}
    facts = {
        day: {**{name: chance.randint(0, case.most) for name in FACT_COUNTS}, "as_of": instant}
        for day, instant in as_of.items()
    }
    rows.add_client(connection, "acme", 101)
    rows.add_facts(connection, "acme", facts)
    for days_ago, metric, status in case.events:
        day = case.today - days_ago * ONE_DAY
        arrived = instant_of(chance, day, zone)
        happened = chance.choice([None, as_of.get(day), arrived])
        rows.add_event(connection, "acme", day, happened, metric, status, arrived_at=arrived)
    for months_ago, target in case.targets.items():
        month = case.today.year * 12 + case.today.month - 1 - months_ago
        rows.add_target(connection, "acme", date(month // 12, month % 12 + 1, 1), *target)
    unfetched = {case.today, *missing}
    for day in unfetched:
        rows.add_plan(connection, "acme", day, 120, 140)
    wanted = [day for day in facts if chance.random() < 0.8]
    rows.add_rows(connection, "acme", wanted, unfetched, zone)
    rows.add_client(connection, "birch", 102, display_name="The birches")
    few = dict(list(facts.items())[-3:])
    rows.add_facts(connection, "birch", few)
    rows.add_rows(connection, "birch", few, zone=zone)


@given(case=CASES)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_inputs_give_no_difference_between_python_and_sql(
    engine: Engine, case: Case
) -> None:
    with engine.connect() as connection:
        store(connection, case)
        found = rows.checked(connection, case.today, ZoneInfo(case.zone))
        connection.rollback()
    assert found.passed, found.problems
    assert found.numbers["rows"] >= 1


@pytest.mark.parametrize(
    ("today", "missing"),
    [
        pytest.param(date(2026, 3, 31), date(2026, 2, 28), id="the last day of the month before"),
        pytest.param(date(2026, 3, 31), date(2026, 2, 1), id="its first day"),
        pytest.param(date(2026, 3, 1), date(2026, 2, 14), id="seen from the first of a month"),
    ],
)
def test_a_missing_day_of_last_month_is_null_in_both(
    engine: Engine, today: date, missing: date
) -> None:
    zone = ZoneInfo("America/Chicago")
    with engine.connect() as connection:
        counts = {
            day: {**dict.fromkeys(FACT_COUNTS, 3), "as_of": day_start(day + ONE_DAY, zone)}
            for day in days_between(today - 90 * ONE_DAY, today)
            if day != missing
        }
        rows.add_client(connection, "acme", 101)
        rows.add_facts(connection, "acme", counts)
        rows.add_rows(connection, "acme", [today])
        assert rows.checked(connection, today).passed
        rows.add_facts(connection, "acme", {missing: dict.fromkeys(FACT_COUNTS, 0)})
        found = rows.checked(connection, today)
        connection.rollback()
    by_column = {row["column"]: row for row in found.problems}
    assert by_column["positive_replies_last_month"]["stored"] is None
    assert by_column["positive_replies_last_month"]["expected"] == "81"
