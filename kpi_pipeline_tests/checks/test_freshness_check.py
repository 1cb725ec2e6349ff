"""The check `freshness`: its severity, description and affected clients."""

from datetime import UTC, date, datetime, time, timedelta

import pytest

from kpi_pipeline.checks.freshness import Deadlines, freshness, freshness_statuses
from kpi_pipeline.checks.outcome import Outcome, Severity
from kpi_pipeline_tests.checks.support import (
    CHICAGO,
    ONE_DAY,
    TODAY,
    YESTERDAY,
    Stock,
    local,
    problems,
)

TOMORROW = TODAY + ONE_DAY


def checked(stock: Stock, now: datetime, deadlines: Deadlines | None = None) -> Outcome:
    wanted = deadlines or Deadlines()
    with stock.engine.connect() as connection:
        statuses = freshness_statuses(connection, now, CHICAGO, wanted)
    return freshness(statuses, now, CHICAGO, wanted)


def synced(stock: Stock, *names: str, at: datetime) -> None:
    """Clients whose past days are closed, and whose numbers of today are from `as_of`."""
    stock.clients(*names)
    for name in names:
        stock.rows(name.lower(), date(2026, 3, 1), YESTERDAY)
        stock.rows(name.lower(), TODAY, as_of=at)


def test_it_passes_and_says_the_allowed_age(stock: Stock) -> None:
    synced(stock, "Acme", "Birch", at=local(TODAY, 14, 30))
    found = checked(stock, local(TODAY, 15))
    assert found.passed
    assert found.severity is Severity.WARN
    assert found.description == (
        "2 of 2 clients fresh: today's numbers are younger than 3 h 0 min, and past days are "
        "closed."
    )
    assert found.numbers == {"fresh": 2, "clients": 2}


@pytest.mark.parametrize(
    ("hour", "minute", "severity"),
    [(13, 1, Severity.WARN), (16, 0, Severity.WARN), (16, 1, Severity.ERROR)],
)
def test_late_numbers_are_a_warning_and_past_twice_the_time_an_error(
    stock: Stock, hour: int, minute: int, severity: Severity
) -> None:
    synced(stock, "Acme", at=local(TODAY, 10))
    assert checked(stock, local(TODAY, 13)).passed
    found = checked(stock, local(TODAY, hour, minute))
    assert not found.passed
    assert found.severity is severity


def test_a_late_client_is_named_with_its_age_and_what_to_do(stock: Stock) -> None:
    synced(stock, "Acme", "Birch", at=local(TODAY, 14, 30))
    stock.rows("birch", TODAY, as_of=local(TODAY, 10))
    found = checked(stock, local(TODAY, 15))
    assert found.problems == [
        {
            "workspace": "birch",
            "as_of": "Wed 18 Mar 2026, 10:00 CDT",
            "problem": "its numbers are 5 h 0 min old",
        }
    ]
    assert found.description.startswith("1 of 2 clients fresh; stale: birch. Check the last runs")
    assert "daily_kpi_sync and intraday_refresh" in found.description
    assert "`kpi sync`" in found.description


def test_an_old_client_whose_last_row_is_18_days_old_is_an_error(stock: Stock) -> None:
    stock.clients("Acme")
    stock.rows("acme", date(2026, 2, 1), date(2026, 2, 28))
    found = checked(stock, local(TODAY, 15))
    assert found.severity is Severity.ERROR
    assert found.problems == [
        {
            "workspace": "acme",
            "as_of": "Sun 01 Mar 2026, 00:00 CST",
            # Of the 18 days in March up to 15:00, one has 23 hours.
            "problem": "its numbers are 17 d 14 h old; 2026-03-17 is not closed",
        }
    ]


def test_a_past_day_gets_no_fresher_when_it_is_fetched_again(stock: Stock) -> None:
    stock.clients("Acme")
    stock.rows("acme", date(2026, 2, 1), date(2026, 2, 28), as_of=local(TODAY, 14, 45))
    found = checked(stock, local(TODAY, 15))
    assert found.severity is Severity.ERROR
    assert found.problems[0]["as_of"] == "Sun 01 Mar 2026, 00:00 CST"


def test_fetching_yesterday_again_makes_no_row_of_today(stock: Stock) -> None:
    stock.clients("Acme")
    stock.rows("acme", date(2026, 3, 1), YESTERDAY, as_of=local(TODAY, 14, 45))
    assert problems(checked(stock, local(TODAY, 15))) == [
        ("acme", "its numbers are 15 h 0 min old")
    ]


def test_fetching_yesterday_again_makes_today_no_fresher(stock: Stock) -> None:
    synced(stock, "Acme", at=local(TODAY, 9))
    stock.rows("acme", YESTERDAY, as_of=local(TODAY, 14, 45))
    assert problems(checked(stock, local(TODAY, 15))) == [("acme", "its numbers are 6 h 0 min old")]


def test_a_day_that_is_not_closed_is_a_warning_until_twice_the_deadline(stock: Stock) -> None:
    synced(stock, "Acme", at=local(TODAY, 23, 55))
    stock.rows("acme", TOMORROW, as_of=local(TOMORROW, 11, 30))
    assert checked(stock, local(TOMORROW, 5, 59)).passed
    at_six = checked(stock, local(TOMORROW, 11, 59))
    assert at_six.severity is Severity.WARN
    assert problems(at_six) == [("acme", "2026-03-18 is not closed")]
    assert checked(stock, local(TOMORROW, 12)).severity is Severity.ERROR


def test_a_client_without_any_row_is_a_warning_and_stays_one(stock: Stock) -> None:
    stock.clients("New")
    found = checked(stock, local(TODAY, 15))
    assert found.severity is Severity.WARN
    assert found.problems == [
        {"workspace": "new", "as_of": "never", "problem": "it has no row yet"}
    ]
    assert found.numbers == {"fresh": 0, "clients": 1}


def test_the_worst_come_first_and_of_these_the_oldest(stock: Stock) -> None:
    synced(stock, "Acme", "Birch", "Cedar", "Dahlia", at=local(TODAY, 14))
    stock.clients("New")
    stock.rows("acme", TODAY, as_of=local(TODAY, 11))
    stock.rows("birch", TODAY, as_of=local(TODAY, 8))
    stock.rows("cedar", TODAY, as_of=local(TODAY, 7))
    found = checked(stock, local(TODAY, 15))
    assert [it["workspace"] for it in found.problems] == ["cedar", "birch", "acme", "new"]
    assert found.severity is Severity.ERROR
    assert "1 of 5 clients fresh; stale: cedar, birch, acme, new." in found.description


def test_the_first_seven_of_many_stale_clients_are_named(stock: Stock) -> None:
    stock.clients(*(f"Client {number}" for number in range(1, 10)))
    found = checked(stock, local(TODAY, 15))
    assert "0 of 9 clients fresh; stale: client-1, " in found.description
    assert "client-7 and 2 more." in found.description


def test_inactive_clients_are_never_stale(stock: Stock) -> None:
    stock.clients("Gone", active=False)
    stock.rows("gone", date(2026, 2, 1))
    found = checked(stock, local(TODAY, 15))
    assert found.passed
    assert found.description.startswith("0 of 0 clients fresh")


def test_rows_of_future_dates_make_no_client_fresh(stock: Stock) -> None:
    synced(stock, "Acme", at=local(TODAY, 9))
    stock.rows("acme", TOMORROW, as_of=local(TODAY, 14, 55))
    assert problems(checked(stock, local(TODAY, 15))) == [("acme", "its numbers are 6 h 0 min old")]


def test_the_deadlines_come_from_the_settings(stock: Stock) -> None:
    synced(stock, "Acme", at=local(TODAY, 10))
    daily = Deadlines(fresh_by=time(9), stale_after=timedelta(hours=1))
    assert checked(stock, local(TODAY, 12), daily).severity is Severity.WARN
    assert checked(stock, local(TODAY, 12, 1), daily).severity is Severity.ERROR


def test_the_day_of_25_hours_is_closed_at_its_own_midnight(stock: Stock) -> None:
    sunday, monday = date(2026, 11, 1), date(2026, 11, 2)
    stock.clients("Acme", "Birch")
    for key in ("acme", "birch"):
        stock.rows(key, monday, as_of=local(monday, 6))
    # A day of 24 hours would have ended at 05:00 UTC.
    stock.rows("acme", sunday, as_of=datetime(2026, 11, 2, 5, 59, tzinfo=UTC))
    stock.rows("birch", sunday, as_of=datetime(2026, 11, 2, 6, 0, tzinfo=UTC))
    assert problems(checked(stock, local(monday, 6, 30))) == [
        ("acme", "2026-11-01 is not closed"),
    ]


@pytest.mark.parametrize(
    ("now", "closed"),
    [
        pytest.param(local(TODAY, 5, 59), date(2026, 3, 16), id="before the deadline"),
        pytest.param(local(TODAY, 6), YESTERDAY, id="at the deadline"),
        pytest.param(local(date(2026, 3, 8), 6), date(2026, 3, 7), id="a morning without 2 am"),
        pytest.param(local(date(2026, 11, 1), 5, 59), date(2026, 10, 30), id="two hours of 1 am"),
        pytest.param(local(date(2026, 1, 1), 6), date(2025, 12, 31), id="the first of a year"),
        pytest.param(local(date(2026, 3, 1), 5), date(2026, 2, 27), id="a first, at night"),
    ],
)
def test_the_last_closed_day_waits_for_the_deadline(now: datetime, closed: date) -> None:
    assert Deadlines().last_closed_day(now, CHICAGO) == closed


def test_a_client_whose_first_row_is_yesterdays_lacks_no_earlier_day(stock: Stock) -> None:
    stock.clients("Acme")
    stock.rows("acme", YESTERDAY, as_of=local(TODAY, 0, 5))
    stock.rows("acme", TODAY, as_of=local(TODAY, 0, 5))
    # Until six, the day before yesterday is the last one that is to be closed.
    assert checked(stock, local(TODAY, 1)).passed
    stock.rows("acme", YESTERDAY - 2 * ONE_DAY)
    assert problems(checked(stock, local(TODAY, 1))) == [("acme", "2026-03-16 is not closed")]
