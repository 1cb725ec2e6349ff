"""The check `plausible`: each rule is broken once, and once just not."""

from datetime import date
from typing import Any

import pytest

from kpi_pipeline.checks.outcome import Outcome, Severity
from kpi_pipeline.checks.plausible import plausible
from kpi_pipeline_tests.checks.support import ONE_DAY, TODAY, YESTERDAY, Stock, problems

MONDAY = date(2026, 3, 16)
# The first of the 30 days, and of the 7, that end on YESTERDAY.
MONTH, WEEK = date(2026, 2, 16), date(2026, 3, 11)


def checked(stock: Stock) -> Outcome:
    with stock.engine.connect() as connection:
        return plausible(connection, TODAY, YESTERDAY)


def mailed(stock: Stock, workspace: str, **counts: int) -> None:
    """A week in which it sent mail and got one positive reply, the mail on its last day."""
    stock.facts(workspace, WEEK, YESTERDAY)
    last: dict[str, Any] = {"sent": 1000, "replied": 2, "interested": 1, **counts}
    stock.facts(workspace, YESTERDAY, **last)


def row(stock: Stock, day: date, columns: dict[str, Any]) -> None:
    """A row of Acme."""
    stock.rows("acme", day, **columns)


def fell(stock: Stock, column: str, before: int, after: int) -> Outcome:
    stock.clients("Acme")
    row(stock, MONDAY, {column: before})
    row(stock, YESTERDAY, {column: after})
    return checked(stock)


def test_it_passes_without_any_row(stock: Stock) -> None:
    stock.clients("Acme")
    found = checked(stock)
    assert found.passed
    assert found.description == (
        "The rows of 2026-01-15 to 2026-03-18 are consistent, and mail gets through."
    )
    assert found.numbers == {"errors": 0, "warnings": 0}


@pytest.mark.parametrize("column", ["bounced_mtd", "projection_emails_eom"])
def test_a_number_below_zero_is_an_error_and_zero_is_not(stock: Stock, column: str) -> None:
    stock.clients("Acme")
    row(stock, MONDAY, {column: 0})
    assert checked(stock).passed
    row(stock, MONDAY, {column: -1})
    found = checked(stock)
    assert found.severity is Severity.ERROR
    assert found.problems == [
        {"workspace": "acme", "date": "2026-03-16", "problem": "a number is below 0"}
    ]
    assert found.description.startswith("0 warnings, 1 error: acme. ")
    assert "`kpi backfill --from 2026-03-01 --to 2026-03-18 -w acme`" in found.description


@pytest.mark.parametrize("what", ["emails_sent", "positive_replies"])
@pytest.mark.parametrize(("shorter", "longer"), [(7, 14), (14, 30)])
def test_a_shorter_window_may_hold_as_much_as_a_longer_one_but_no_more(
    stock: Stock, what: str, shorter: int, longer: int
) -> None:
    stock.clients("Acme")
    names = (f"{what}_last_{shorter}_days", f"{what}_last_{longer}_days")
    row(stock, MONDAY, dict.fromkeys(names, 40))
    assert checked(stock).passed
    row(stock, MONDAY, dict(zip(names, (41, 40), strict=True)))
    assert problems(checked(stock)) == [("acme", "7 days hold more than 14, or 14 more than 30")]


def test_windows_that_are_null_contradict_nothing(stock: Stock) -> None:
    stock.clients("Acme")
    stock.rows("acme", MONDAY, emails_sent_last_7_days=40, positive_replies_last_14_days=3)
    assert checked(stock).passed


@pytest.mark.parametrize(
    ("column", "before", "after"),
    [
        pytest.param("emails_sent_mtd", 1000, 990, id="one percent of the mail"),
        pytest.param("positive_replies_mtd", 20, 17, id="three leads"),
        pytest.param("positive_replies_mtd", 3, 0, id="three leads of three"),
        pytest.param("positive_replies_mtd", 100, 90, id="ten percent of the leads"),
    ],
)
def test_a_months_sum_may_fall_by_what_revisions_explain(
    stock: Stock, column: str, before: int, after: int
) -> None:
    assert fell(stock, column, before, after).passed


@pytest.mark.parametrize(
    ("column", "before", "after", "problem"),
    [
        ("emails_sent_mtd", 1000, 989, "the month's emails sent fell from 1,000 to 989"),
        ("emails_sent_mtd", 99, 98, "the month's emails sent fell from 99 to 98"),
        ("positive_replies_mtd", 20, 16, "the month's positive replies fell from 20 to 16"),
        ("positive_replies_mtd", 100, 89, "the month's positive replies fell from 100 to 89"),
    ],
)
def test_a_months_sum_that_falls_further_is_an_error(
    stock: Stock, column: str, before: int, after: int, problem: str
) -> None:
    found = fell(stock, column, before, after)
    assert found.severity is Severity.ERROR
    assert found.problems == [{"workspace": "acme", "date": "2026-03-17", "problem": problem}]


def test_sums_start_again_on_the_first_of_a_month(stock: Stock) -> None:
    stock.clients("Acme")
    stock.rows("acme", date(2026, 2, 28), emails_sent_mtd=5000, positive_replies_mtd=90)
    stock.rows("acme", date(2026, 3, 1), emails_sent_mtd=0, positive_replies_mtd=0)
    assert checked(stock).passed
    stock.rows("acme", date(2026, 2, 27), emails_sent_mtd=6000, positive_replies_mtd=90)
    assert problems(checked(stock)) == [
        ("acme", "the month's emails sent fell from 6,000 to 5,000")
    ]


def test_a_fall_across_missing_days_is_found_too(stock: Stock) -> None:
    stock.clients("Acme")
    stock.rows("acme", date(2026, 3, 2), emails_sent_mtd=5000)
    stock.rows("acme", date(2026, 3, 9), emails_sent_mtd=400)
    assert problems(checked(stock)) == [("acme", "the month's emails sent fell from 5,000 to 400")]


def test_only_the_last_62_days_and_today_are_checked(stock: Stock) -> None:
    stock.clients("Acme")
    stock.rows("acme", date(2026, 1, 14), bounced_mtd=-1)
    stock.rows("acme", TODAY + ONE_DAY, bounced_mtd=-1)
    assert checked(stock).passed
    stock.rows("acme", date(2026, 1, 15), bounced_mtd=-1)
    stock.rows("acme", TODAY, bounced_mtd=-1)
    assert problems(checked(stock), "date") == [("acme", "2026-03-18"), ("acme", "2026-01-15")]


def test_two_clients_with_the_same_totals_name_each_other(stock: Stock) -> None:
    stock.clients("Acme", "Birch", "Cedar")
    for key in ("acme", "birch"):
        mailed(stock, key, sent=1200, bounced=4)
    mailed(stock, "cedar", sent=1200, bounced=5)
    found = checked(stock)
    assert found.severity is Severity.ERROR
    assert found.problems == [
        {
            "workspace": key,
            "date": None,
            "problem": "the same numbers of emails sent (1,200), replies and bounces in 30 days "
            f"as {other}",
        }
        for key, other in (("acme", "birch"), ("birch", "acme"))
    ]


def test_three_clients_with_the_same_totals_name_both_others(stock: Stock) -> None:
    stock.clients("Acme", "Birch", "Cedar")
    for key in ("acme", "birch", "cedar"):
        mailed(stock, key)
    same = "the same numbers of emails sent (1,000), replies and bounces in 30 days as"
    assert problems(checked(stock)) == [
        ("acme", f"{same} birch, cedar"),
        ("birch", f"{same} acme, cedar"),
        ("cedar", f"{same} acme, birch"),
    ]


def test_clients_that_sent_nothing_may_have_the_same_totals(stock: Stock) -> None:
    stock.clients("Acme", "Birch")
    for key in ("acme", "birch"):
        stock.facts(key, MONTH, YESTERDAY)
    assert checked(stock).passed


def test_the_same_totals_over_different_days_are_no_error(stock: Stock) -> None:
    stock.clients("Acme", "Birch")
    mailed(stock, "acme")
    mailed(stock, "birch")
    stock.facts("birch", WEEK - ONE_DAY)
    assert checked(stock).passed


def test_counts_outside_the_30_days_are_not_compared(stock: Stock) -> None:
    stock.clients("Acme", "Birch")
    mailed(stock, "acme")
    mailed(stock, "birch", sent=1001)
    stock.facts("acme", MONTH - ONE_DAY, sent=1)
    stock.facts("acme", TODAY, sent=1)
    stock.facts("birch", MONTH - ONE_DAY)
    stock.facts("birch", TODAY)
    assert checked(stock).passed


@pytest.mark.parametrize(("sent", "bounced"), [(1000, 50), (100, 5), (99, 99)])
def test_up_to_five_percent_bounces_and_bounces_of_few_emails_are_accepted(
    stock: Stock, sent: int, bounced: int
) -> None:
    stock.clients("Acme")
    mailed(stock, "acme", sent=sent, bounced=bounced)
    assert checked(stock).passed


@pytest.mark.parametrize(
    ("sent", "bounced", "problem"),
    [
        (1000, 51, "5.1 % of 1,000 emails sent bounced in 7 days"),
        (100, 6, "6.0 % of 100 emails sent bounced in 7 days"),
    ],
)
def test_more_bounces_than_five_percent_are_a_warning(
    stock: Stock, sent: int, bounced: int, problem: str
) -> None:
    stock.clients("Acme")
    mailed(stock, "acme", sent=sent, bounced=bounced)
    found = checked(stock)
    assert found.severity is Severity.WARN
    assert found.problems == [{"workspace": "acme", "date": None, "problem": problem}]
    assert found.numbers == {"errors": 0, "warnings": 1}
    assert found.description == (
        "1 warning, 0 errors: acme. The rows are right: check "
        "the campaigns of this client in Email Bison."
    )


def test_bounces_of_more_than_a_week_ago_do_not_count(stock: Stock) -> None:
    stock.clients("Acme")
    mailed(stock, "acme")
    stock.facts("acme", WEEK - ONE_DAY, sent=500, bounced=500)
    assert checked(stock).passed


def test_a_week_of_emails_without_a_positive_reply_is_a_warning(stock: Stock) -> None:
    stock.clients("Acme", "Birch")
    mailed(stock, "acme", interested=0)
    mailed(stock, "birch", interested=1)
    found = checked(stock)
    assert found.severity is Severity.WARN
    assert problems(found) == [("acme", "no positive reply in 7 days, with 1,000 emails sent")]


def test_six_days_without_a_positive_reply_are_accepted(stock: Stock) -> None:
    stock.clients("Acme")
    stock.facts("acme", WEEK + ONE_DAY, YESTERDAY, sent=100)
    assert checked(stock).passed
    stock.facts("acme", WEEK, sent=100)
    assert problems(checked(stock)) == [
        ("acme", "no positive reply in 7 days, with 700 emails sent")
    ]


def test_errors_come_before_warnings(stock: Stock) -> None:
    stock.clients("Acme", "Birch")
    mailed(stock, "acme", interested=0, bounced=60)
    stock.rows("birch", MONDAY, bounced_mtd=-1)
    found = checked(stock)
    assert [it["workspace"] for it in found.problems] == ["birch", "acme", "acme"]
    assert found.numbers == {"errors": 1, "warnings": 2}
    assert found.description.startswith("2 warnings, 1 error: birch, acme")


def test_inactive_clients_are_not_judged(stock: Stock) -> None:
    stock.clients("Acme")
    stock.clients("Gone", active=False)
    mailed(stock, "acme")
    mailed(stock, "gone")
    stock.rows("gone", MONDAY, bounced_mtd=-1)
    assert checked(stock).passed
