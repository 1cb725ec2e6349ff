"""The check `totals_match_bison`: the facts' sums against Email Bison's own totals."""

from collections.abc import Mapping
from datetime import date

import pytest

from kpi_pipeline.checks.bison import period_to_compare, totals_match_bison
from kpi_pipeline.checks.outcome import Outcome, Severity, all_unanswered, has_unanswered
from kpi_pipeline_tests.checks.support import TODAY, YESTERDAY, Stock

FIRST = date(2026, 3, 1)
# What 17 days of the facts below add up to.
RIGHT = {"sent": 1700, "interested": 34, "bounced": 51, "unsubscribed": 17}


@pytest.fixture(autouse=True)
def _whole_month(stock: Stock) -> None:
    """Two clients with the month's facts, and days around it that are not compared."""
    stock.clients("Acme", "Birch")
    for key in ("acme", "birch"):
        stock.facts(
            key,
            date(2026, 2, 26),
            TODAY,
            sent=100,
            replied=9,
            interested=2,
            bounced=3,
            unsubscribed=1,
        )


def checked(
    stock: Stock,
    totals: Mapping[str, Mapping[str, int]],
    unasked: Mapping[str, str] | None = None,
    unanswered: Mapping[str, str] | None = None,
) -> Outcome:
    with stock.engine.connect() as connection:
        return totals_match_bison(
            connection, totals, unasked or {}, unanswered or {}, FIRST, YESTERDAY
        )


def test_it_passes_and_says_how_many_clients_match_over_which_days(stock: Stock) -> None:
    found = checked(stock, {"acme": RIGHT, "birch": RIGHT})
    assert found.passed
    assert found.description == (
        "2 of 2 clients match Email Bison's own totals, 2026-03-01 to 2026-03-17."
    )
    assert found.numbers == {"clients": 2, "matching": 2}


@pytest.mark.parametrize(
    ("count", "words"),
    [
        ("sent", "emails sent"),
        ("interested", "positive replies"),
        ("bounced", "bounces"),
        ("unsubscribed", "unsubscribes"),
    ],
)
def test_a_count_that_differs_is_shown_with_both_numbers(
    stock: Stock, count: str, words: str
) -> None:
    found = checked(stock, {"acme": RIGHT, "birch": {**RIGHT, count: RIGHT[count] + 1}})
    assert found.severity is Severity.WARN
    assert found.problems == [
        {
            "workspace": "birch",
            "count": words,
            "ours": RIGHT[count],
            "bison": RIGHT[count] + 1,
            "why": None,
        }
    ]
    assert found.numbers == {"clients": 2, "matching": 1}


def test_what_to_do_names_the_client_and_its_period(stock: Stock) -> None:
    found = checked(stock, {"acme": RIGHT, "birch": {**RIGHT, "sent": 1, "bounced": 1}})
    assert found.description.startswith(
        "1 of 2 clients match Email Bison's own totals, 2026-03-01 to 2026-03-17; not: birch. "
    )
    assert "`kpi backfill --from 2026-03-01 --to 2026-03-17 -w birch`" in found.description
    assert [it["count"] for it in found.problems] == ["emails sent", "bounces"]


def test_missing_days_are_shown_as_a_number_in_place_of_counts(stock: Stock) -> None:
    stock.clients("New")
    stock.facts("new", date(2026, 3, 10), YESTERDAY, sent=5)
    found = checked(stock, {"acme": RIGHT, "birch": RIGHT, "new": RIGHT})
    assert found.problems == [
        {"workspace": "new", "count": "days with facts", "ours": 8, "bison": 17, "why": None}
    ]


def test_a_client_that_could_not_be_asked_is_named_with_the_reason(stock: Stock) -> None:
    found = checked(stock, {"acme": RIGHT}, {"birch": "Its key was rejected."})
    assert found.severity is Severity.WARN
    assert found.problems == [
        {
            "workspace": "birch",
            "count": "could not be asked",
            "ours": None,
            "bison": None,
            "why": "Its key was rejected.",
        }
    ]
    assert found.numbers == {"clients": 2, "matching": 1}


def test_a_client_without_an_answer_is_asked_again_and_one_with_an_error_is_not(
    stock: Stock,
) -> None:
    silent = checked(stock, {"acme": RIGHT}, {}, {"birch": "birch: GET /stats timed out."})
    assert [it["count"] for it in silent.problems] == ["unanswered"]
    assert all_unanswered(silent.problems)
    both = checked(stock, {}, {"acme": "Its key was rejected."}, {"birch": "timed out."})
    assert has_unanswered(both.problems)
    assert not all_unanswered(both.problems)
    rejected = checked(stock, {"acme": RIGHT}, {"birch": "Its key was rejected."})
    assert not has_unanswered(rejected.problems)


def test_a_client_that_was_imported_meanwhile_is_not_compared(stock: Stock) -> None:
    stock.clients("New")
    assert checked(stock, {"acme": RIGHT, "birch": RIGHT}).passed


def test_inactive_clients_are_not_compared(stock: Stock) -> None:
    stock.clients("Gone", active=False)
    found = checked(stock, {"acme": RIGHT, "birch": RIGHT, "gone": RIGHT})
    assert found.passed
    assert found.numbers["clients"] == 2


@pytest.mark.parametrize(
    ("today", "period"),
    [
        pytest.param(TODAY, (FIRST, YESTERDAY), id="amid a month"),
        pytest.param(date(2026, 3, 2), (FIRST, FIRST), id="on the 2nd"),
        pytest.param(FIRST, (date(2026, 2, 1), date(2026, 2, 28)), id="on the 1st"),
        pytest.param(
            date(2028, 3, 1), (date(2028, 2, 1), date(2028, 2, 29)), id="after a leap month"
        ),
        pytest.param(
            date(2026, 1, 1), (date(2025, 12, 1), date(2025, 12, 31)), id="on the 1st of a year"
        ),
    ],
)
def test_the_closed_days_of_yesterdays_month_are_compared(
    today: date, period: tuple[date, date]
) -> None:
    assert period_to_compare(today) == period
