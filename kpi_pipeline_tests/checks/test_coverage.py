"""The checks `no_missing_days` and `complete`: which days of which clients are missing."""

from datetime import date, timedelta

import pytest
from sqlalchemy import delete

from kpi_pipeline.checks.coverage import complete, no_missing_days
from kpi_pipeline.checks.outcome import Outcome, Severity
from kpi_pipeline.db.tables import raw_bison_stats
from kpi_pipeline_tests.checks.support import ONE_DAY, TODAY, YESTERDAY, Stock, problems

# The first of the 62 days that end on YESTERDAY.
SINCE = date(2026, 1, 15)
LONG_AGO = date(2025, 11, 1)


def march(day: int) -> date:
    return date(2026, 3, day)


def facts_up_to(stock: Stock, until: date = YESTERDAY) -> Outcome:
    with stock.engine.connect() as connection:
        return no_missing_days(connection, until)


def rows_up_to(stock: Stock, until: date = YESTERDAY) -> Outcome:
    with stock.engine.connect() as connection:
        return complete(connection, until)


def test_it_passes_and_counts_days_and_clients_when_no_day_is_missing(stock: Stock) -> None:
    stock.clients("Acme", "Birch")
    stock.facts("acme", march(1), YESTERDAY)
    stock.facts("birch", march(16), YESTERDAY)
    found = facts_up_to(stock)
    assert found.passed
    assert found.description == (
        "2 of 2 clients have 19 days of facts, and no day is missing up to 2026-03-17."
    )
    assert found.numbers == {"clients": 2, "clients_with_days": 2, "days": 19, "missing_days": 0}


def test_deleted_facts_are_named_with_their_period_and_number_of_days(stock: Stock) -> None:
    stock.clients("Acme", "Birch")
    stock.facts("acme", LONG_AGO, YESTERDAY)
    stock.facts("birch", march(1), YESTERDAY)
    with stock.engine.begin() as connection:
        connection.execute(
            delete(raw_bison_stats).where(
                raw_bison_stats.c.workspace == "acme",
                raw_bison_stats.c.date.between(date(2025, 12, 24), date(2026, 1, 2)),
            )
        )
    found = facts_up_to(stock)
    assert found.severity is Severity.ERROR
    assert found.problems == [
        {"workspace": "acme", "missing": "2025-12-24 to 2026-01-02", "days": 10}
    ]
    assert found.description.startswith(
        "2 of 2 clients have 144 days of facts; 10 days missing (acme): "
        "every window over them is NULL, not 0."
    )
    assert "-w acme`, or select these partitions" in found.description


def test_one_missing_day_is_named_as_one_date(stock: Stock) -> None:
    stock.clients("Acme")
    stock.facts("acme", march(1), YESTERDAY, without=[march(9)])
    found = facts_up_to(stock)
    assert problems(found, "missing") == [("acme", "2026-03-09")]
    assert "1 day missing (acme)" in found.description


def test_days_at_the_end_are_missing_too(stock: Stock) -> None:
    stock.clients("Acme")
    stock.facts("acme", march(1), march(15))
    assert problems(facts_up_to(stock), "missing") == [("acme", "2026-03-16 to 2026-03-17")]
    assert facts_up_to(stock, march(15)).passed


def test_no_day_before_a_clients_first_day_is_missing(stock: Stock) -> None:
    stock.clients("Acme")
    stock.facts("acme", YESTERDAY)
    assert facts_up_to(stock).passed


def test_the_longest_gap_comes_first_and_a_client_with_several_is_named_once(
    stock: Stock,
) -> None:
    stock.clients("Acme", "Birch")
    stock.facts("acme", march(1), YESTERDAY, without=[march(3), march(10), march(11)])
    stock.facts("birch", march(1), YESTERDAY, without=[march(6), march(7), march(8)])
    found = facts_up_to(stock)
    assert [(it["workspace"], it["missing"], it["days"]) for it in found.problems] == [
        ("birch", "2026-03-06 to 2026-03-08", 3),
        ("acme", "2026-03-10 to 2026-03-11", 2),
        ("acme", "2026-03-03", 1),
    ]
    assert "6 days missing (birch, acme)" in found.description
    assert found.numbers["missing_days"] == 6


def test_a_client_whose_facts_were_never_fetched_is_a_warning(stock: Stock) -> None:
    stock.clients("Acme", "New")
    stock.facts("acme", march(1), YESTERDAY)
    found = facts_up_to(stock)
    assert found.severity is Severity.WARN
    assert found.problems == [
        {"workspace": "new", "missing": "nothing was ever fetched", "days": 0}
    ]
    assert found.description.startswith("1 of 2 clients have 17 days of facts")


def test_a_gap_beside_a_new_client_is_an_error_and_comes_first(stock: Stock) -> None:
    stock.clients("New", "Zinc")
    stock.facts("zinc", march(1), YESTERDAY, without=[march(2)])
    found = facts_up_to(stock)
    assert found.severity is Severity.ERROR
    assert problems(found, "missing") == [
        ("zinc", "2026-03-02"),
        ("new", "nothing was ever fetched"),
    ]


def test_inactive_clients_do_not_count(stock: Stock) -> None:
    stock.clients("Acme")
    stock.clients("Gone", "Never", active=False)
    stock.facts("acme", march(16), YESTERDAY)
    stock.facts("gone", march(1), YESTERDAY, without=[march(5)])
    stock.rows("acme", march(16), YESTERDAY)
    stock.rows("gone", march(1), YESTERDAY, without=[march(5)])
    for found in (facts_up_to(stock), rows_up_to(stock)):
        assert found.passed
        assert (found.numbers["clients"], found.numbers["days"]) == (1, 2)


def test_nothing_is_missing_without_clients(stock: Stock) -> None:
    assert facts_up_to(stock).passed
    assert rows_up_to(stock).description.startswith("0 of 0 clients and 0 of 0 days have a row")


def test_complete_counts_how_many_of_the_62_days_have_rows(stock: Stock) -> None:
    stock.clients("Acme", "Birch")
    stock.rows("acme", LONG_AGO, TODAY)
    stock.rows("birch", LONG_AGO, TODAY)
    found = rows_up_to(stock)
    assert found.passed
    assert found.description == (
        "2 of 2 clients and 124 of 124 days have a row, 2026-01-15 to 2026-03-17."
    )


def test_gaps_at_the_start_in_the_middle_and_at_the_end_are_found(stock: Stock) -> None:
    stock.clients("Acme")
    first_two, middle, last_three = (SINCE, SINCE + ONE_DAY), march(1), (15, 16, 17)
    without = [*first_two, middle, *map(march, last_three)]
    stock.rows("acme", LONG_AGO, YESTERDAY, without=without)
    found = rows_up_to(stock)
    assert problems(found, "missing") == [
        ("acme", "2026-03-15 to 2026-03-17"),
        ("acme", "2026-01-15 to 2026-01-16"),
        ("acme", "2026-03-01"),
    ]
    assert found.description.startswith(
        "1 of 1 client and 56 of 62 days have a row, 2026-01-15 to 2026-03-17; missing: acme. "
    )
    assert found.numbers["days_due"] == 62


def test_a_gap_that_began_before_the_62_days_counts_only_within_them(
    stock: Stock,
) -> None:
    stock.clients("Acme")
    stock.rows("acme", LONG_AGO, date(2025, 12, 31))
    stock.rows("acme", march(1), YESTERDAY)
    found = rows_up_to(stock)
    assert found.problems == [
        {"workspace": "acme", "missing": "2026-01-15 to 2026-02-28", "days": 45}
    ]


def test_a_gap_that_ended_before_the_62_days_is_ignored(stock: Stock) -> None:
    stock.clients("Acme")
    stock.rows("acme", LONG_AGO, YESTERDAY, without=[SINCE - ONE_DAY])
    assert rows_up_to(stock).passed


def test_a_client_whose_rows_ended_before_the_62_days_lacks_all_of_them(stock: Stock) -> None:
    stock.clients("Acme")
    stock.rows("acme", LONG_AGO, SINCE - 3 * ONE_DAY)
    found = rows_up_to(stock)
    assert found.severity is Severity.ERROR
    assert found.problems == [
        {"workspace": "acme", "missing": "2026-01-15 to 2026-03-17", "days": 62}
    ]
    assert "0 of 62 days have a row" in found.description


def test_a_client_that_was_added_last_week_lacks_no_day_before(stock: Stock) -> None:
    stock.clients("Acme", "Birch")
    stock.rows("acme", LONG_AGO, YESTERDAY)
    stock.rows("birch", YESTERDAY - timedelta(days=6), YESTERDAY)
    found = rows_up_to(stock)
    assert found.passed
    assert "69 of 69 days have a row" in found.description


def test_a_client_without_any_row_is_a_warning(stock: Stock) -> None:
    stock.clients("Acme", "New")
    stock.rows("acme", SINCE, YESTERDAY)
    found = rows_up_to(stock)
    assert found.severity is Severity.WARN
    assert problems(found, "missing") == [("new", "no row was ever written")]
    assert found.description.startswith("1 of 2 clients and 62 of 62 days have a row")


def test_a_client_whose_first_day_is_today_lacks_nothing(stock: Stock) -> None:
    stock.clients("Acme", "New")
    stock.rows("acme", SINCE, TODAY)
    stock.rows("new", TODAY)
    assert problems(rows_up_to(stock), "missing") == []


def test_more_gaps_than_are_shown_are_counted(stock: Stock) -> None:
    stock.clients(*(f"Client {number:02}" for number in range(53)))
    found = rows_up_to(stock)
    assert (len(found.problems), found.more) == (50, 3)
    assert "client-06 and 46 more" in found.description


@pytest.mark.parametrize(
    ("missing", "until"),
    [
        pytest.param(date(2026, 2, 28), march(1), id="the end of a short month"),
        pytest.param(date(2028, 2, 29), date(2028, 3, 1), id="a leap day"),
        pytest.param(date(2025, 12, 31), date(2026, 1, 1), id="the end of a year"),
        pytest.param(march(1), march(1), id="the first of a month"),
        pytest.param(march(8), march(9), id="a day of 23 hours"),
        pytest.param(date(2026, 11, 1), date(2026, 11, 2), id="a day of 25 hours"),
    ],
)
def test_a_single_missing_day_is_found_at_any_position(
    stock: Stock, missing: date, until: date
) -> None:
    stock.clients("Acme")
    first = missing - timedelta(days=40)
    stock.facts("acme", first, until, without=[missing])
    stock.rows("acme", first, until, without=[missing])
    for found in (facts_up_to(stock, until), rows_up_to(stock, until)):
        assert found.problems == [{"workspace": "acme", "missing": str(missing), "days": 1}]
