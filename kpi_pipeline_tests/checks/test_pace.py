"""The checks `sending_pace` and `reply_rate`: each threshold is missed once, and once just not."""

from collections.abc import Collection
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import event

from kpi_pipeline.checks.outcome import Outcome, Severity
from kpi_pipeline.checks.pace import (
    DEFAULT_MAX_SENDING_SHORTFALL,
    DEFAULT_MIN_REPLY_RATE,
    reply_rate,
    sending_pace,
)
from kpi_pipeline.domain.calendar import days_between, days_in_month
from kpi_pipeline.domain.client_problems import FailingCheck, problems_by_client
from kpi_pipeline_tests.checks.rows import CHICAGO, add_rows, add_target
from kpi_pipeline_tests.checks.support import ONE_DAY, YESTERDAY, Stock, problems

# The first of the 7 days that end on YESTERDAY, the 17th.
WEEK = date(2026, 3, 11)
FEBRUARY, MARCH = date(2026, 2, 1), date(2026, 3, 1)
# In March, 1,000 emails a day.
TARGET = 31_000


def paced(stock: Stock, until: date = YESTERDAY) -> Outcome:
    with stock.engine.connect() as connection:
        return sending_pace(connection, until)


def replied(stock: Stock, until: date = YESTERDAY) -> Outcome:
    with stock.engine.connect() as connection:
        return reply_rate(connection, until)


def sender(
    stock: Stock,
    name: str,
    a_day: int,
    *,
    until: date = YESTERDAY,
    since: date = FEBRUARY,
    weekdays_only: bool = False,
    without: Collection[date] = (),
    **changed: Any,
) -> None:
    """A client with so many emails on each day, and the rows that follow from them."""
    stock.clients(name, **{"monthly_sending_target": TARGET, **changed})
    workspace = name.lower()
    for day in days_between(min(since, FEBRUARY), until):
        if day not in without:
            works = day >= since and (day.weekday() < 5 or not weekdays_only)
            stock.facts(workspace, day, sent=a_day if works else 0)
    with stock.engine.begin() as connection:
        add_rows(connection, workspace, days_between(until - 9 * ONE_DAY, until), zone=CHICAGO)


def row(stock: Stock, day: date, sent: int, progress: str) -> None:
    """A row of Acme whose projection is this percentage of its target."""
    stock.rows(
        "acme",
        day,
        emails_sent_mtd=sent,
        monthly_sending_target=TARGET,
        projection_sending_progress=Decimal(progress),
    )


def mailed(stock: Stock, workspace: str, sent: int, replies: int) -> None:
    """A week of emails, all on its last day, after a day with emails before it."""
    stock.facts(workspace, WEEK - ONE_DAY, sent=10)
    stock.facts(workspace, WEEK, YESTERDAY)
    stock.facts(workspace, YESTERDAY, sent=sent, replied=replies)


def test_a_client_that_is_more_than_15_percent_behind_is_a_warning_with_the_numbers(
    stock: Stock,
) -> None:
    sender(stock, "Acme", 840)
    sender(stock, "Birch", 850)
    found = paced(stock)
    assert found.severity is Severity.WARN
    assert problems(found) == [
        (
            "acme",
            "14,280 emails sent by the end of 2026-03-17, 17,000 are due for the sending target "
            "of 31,000: 16.0 % behind, 15 % are allowed",
        )
    ]
    assert found.description == (
        "1 of 2 clients behind the sending target on each of the 3 days up to 2026-03-17: acme. "
        "Check their campaigns in Email Bison: are they active, with leads left and senders "
        "connected? If fewer emails are intended, change the sending target on the client's page, "
        "or allow more with `kpi clients thresholds acme --max-sending-shortfall PERCENT`."
    )
    assert found.numbers == {"clients": 2, "behind": 1}


@pytest.mark.parametrize(("progress", "behind"), [("85.00", 0), ("84.99", 1)])
def test_15_percent_are_not_more_than_15_percent(stock: Stock, progress: str, behind: int) -> None:
    stock.clients("Acme")
    stock.facts("acme", date(2026, 2, 10), sent=1)
    for day in days_between(YESTERDAY - 2 * ONE_DAY, YESTERDAY):
        row(stock, day, 14_448, progress)
    found = paced(stock)
    assert len(found.problems) == behind
    assert ": 15.1 % behind" in str(found.problems) or not behind


def test_who_sends_the_target_on_weekdays_alone_is_never_behind_by_15_percent() -> None:
    for number in range(28 * 12):
        first = date(2026 + number // 12, number % 12 + 1, 1)
        length = days_in_month(first)
        working = [n for n in range(1, length + 1) if (first + (n - 1) * ONE_DAY).weekday() < 5]
        share = [sum(it <= n for it in working) / len(working) for n in range(length + 1)]
        progress = [share[n] * length / max(n, 1) for n in range(length + 1)]
        for day in range(7, length + 1):
            assert max(progress[day - 2 : day + 1]) > 0.87


def test_a_weekend_does_not_put_a_client_behind(stock: Stock) -> None:
    # Sunday the 8th: 6 of 22 working days are over a quarter, and 8 of 31 days as well.
    a_day = TARGET // 22
    sender(stock, "Acme", a_day, until=date(2026, 3, 8), weekdays_only=True)
    assert paced(stock, date(2026, 3, 8)).passed


def test_a_client_that_stops_sending_is_named_within_days(stock: Stock) -> None:
    sender(stock, "Acme", 1_000)
    # It is 19 % behind after four days without emails, and for three days after six.
    stopped = YESTERDAY + ONE_DAY
    stock.facts("acme", stopped, stopped + 9 * ONE_DAY)
    with stock.engine.begin() as connection:
        add_rows(connection, "acme", days_between(stopped, stopped + 9 * ONE_DAY))
    passed = [paced(stock, stopped + n * ONE_DAY).passed for n in range(6)]
    assert passed == [True] * 5 + [False]


def test_no_problem_ends_with_its_month_which_is_judged_until_the_next_has_seven_days(
    stock: Stock,
) -> None:
    # In February 21,700 of 31,000 emails; from March on, the target.
    sender(stock, "Acme", 775, until=date(2026, 2, 28))
    stock.facts("acme", MARCH, date(2026, 3, 7), sent=1_000)
    with stock.engine.begin() as connection:
        add_target(connection, "acme", date(2026, 1, 1), 60, TARGET)
        add_rows(connection, "acme", days_between(date(2026, 2, 20), date(2026, 3, 7)))
    for day in (date(2026, 2, 28), MARCH, date(2026, 3, 6)):
        assert problems(paced(stock, day)) == [
            (
                "acme",
                "21,700 emails sent by the end of 2026-02-28, 31,000 are due for the sending "
                "target of 31,000: 30.0 % behind, 15 % are allowed",
            )
        ]
    assert paced(stock, date(2026, 3, 7)).passed


def test_clients_without_a_target_and_new_ones_are_left_out_and_counted(stock: Stock) -> None:
    sender(stock, "Acme", 1_000)
    sender(stock, "Birch", 10, monthly_sending_target=None)
    sender(stock, "Cedar", 10, monthly_sending_target=0)
    sender(stock, "Dale", 10, since=date(2026, 3, 12))
    stock.clients("Elder", monthly_sending_target=TARGET)
    stock.facts("elder", date(2026, 2, 10), sent=1)
    stock.clients("Gone", monthly_sending_target=TARGET, active=False)
    found = paced(stock)
    assert found.passed
    assert found.description == (
        "1 client judged up to 2026-03-17, and none is behind its sending target by more than it "
        "may be. Not judged: 2 without a sending target, 1 new in the month, 1 with a day of the "
        "month unknown."
    )


def test_a_client_that_never_sent_is_judged_from_the_second_month_of_its_target_on(
    stock: Stock,
) -> None:
    until = date(2026, 4, 17)
    sender(stock, "Acme", 0, until=until)
    assert paced(stock).passed
    assert problems(paced(stock, until)) == [
        (
            "acme",
            "0 emails sent by the end of 2026-04-17, 17,567 are due for the sending target of "
            "31,000: 100.0 % behind, 15 % are allowed",
        )
    ]


def test_a_day_that_is_not_fetched_yet_does_not_end_a_warning(stock: Stock) -> None:
    sender(stock, "Acme", 500, until=YESTERDAY - ONE_DAY)
    assert "by the end of 2026-03-16, 16,000 are due" in str(paced(stock).problems)


def test_a_window_with_a_day_that_was_never_fetched_is_left_out(stock: Stock) -> None:
    sender(stock, "Acme", 500, without=[date(2026, 3, 4)])
    assert "Not judged: 1 with a day of the month unknown." in paced(stock).description


def test_a_client_may_have_its_own_threshold_of_pace(stock: Stock) -> None:
    sender(stock, "Acme", 700, max_sending_shortfall=Decimal(30))
    sender(stock, "Birch", 700, max_sending_shortfall=Decimal("29.5"))
    sender(stock, "Cedar", 0, max_sending_shortfall=Decimal(100))
    sender(stock, "Dale", 990, max_sending_shortfall=Decimal(0))
    found = paced(stock)
    assert [str(it["problem"]).rpartition(": ")[2] for it in found.problems] == [
        "30.0 % behind, 29.5 % are allowed",
        "1.0 % behind, 0 % are allowed",
    ]
    assert found.clients == ["birch", "dale"]


@pytest.mark.parametrize(
    ("sent", "replies", "text"),
    [
        (1_000, 2, "0.20 % replies to 1,000 emails sent in 7 days, 0.3 % are expected"),
        (100, 0, "0.00 % replies to 100 emails sent in 7 days, 0.3 % are expected"),
        (100_000, 299, "0.29 % replies to 100,000 emails sent in 7 days, 0.3 % are expected"),
    ],
)
def test_fewer_replies_than_to_three_of_a_thousand_emails_are_a_warning(
    stock: Stock, sent: int, replies: int, text: str
) -> None:
    stock.clients("Acme", "Birch")
    mailed(stock, "acme", sent, replies)
    mailed(stock, "birch", 1_000, 9)
    found = replied(stock)
    assert found.severity is Severity.WARN
    assert problems(found) == [("acme", text)]
    assert found.description == (
        "1 of 2 clients with few replies in the 7 days up to 2026-03-17: acme. Check in Email "
        "Bison whether their emails reach inboxes (bounces, warm-up, the domain's reputation), "
        "and what they say. If fewer replies are normal for a client, allow them with `kpi "
        "clients thresholds acme --min-reply-rate PERCENT`."
    )
    assert found.numbers == {"clients": 2, "few_replies": 1}


@pytest.mark.parametrize(("sent", "replies"), [(1_000, 3), (99, 0), (0, 0)])
def test_three_of_a_thousand_and_any_share_of_fewer_than_100_emails_are_accepted(
    stock: Stock, sent: int, replies: int
) -> None:
    stock.clients("Acme")
    mailed(stock, "acme", sent, replies)
    assert replied(stock).passed


def test_emails_and_replies_of_more_than_a_week_ago_do_not_count(stock: Stock) -> None:
    stock.clients("Acme", "Birch")
    for workspace in ("acme", "birch"):
        mailed(stock, workspace, 1_000, 2)
    stock.facts("acme", WEEK - ONE_DAY, sent=10, replied=500)
    stock.facts("birch", YESTERDAY + ONE_DAY, sent=10, replied=500)
    assert replied(stock).clients == ["acme", "birch"]


def test_a_client_that_sends_for_the_first_time_is_left_out_as_replies_follow_later(
    stock: Stock,
) -> None:
    stock.clients("Acme", "Birch", "Cedar")
    stock.clients("Gone", active=False)
    for workspace in ("acme", "gone"):
        mailed(stock, workspace, 1_000, 0)
    stock.facts("acme", WEEK - ONE_DAY, sent=0)
    mailed(stock, "birch", 50, 0)
    stock.facts("cedar", WEEK + ONE_DAY, YESTERDAY, sent=100)
    found = replied(stock)
    assert found.passed
    assert found.description == (
        "0 clients judged: enough emails of the 7 days up to 2026-03-17 were replied to. Not "
        "judged: 1 new, 1 with fewer than 100 emails, 1 with a day of the week unknown."
    )


def test_days_that_are_not_fetched_yet_do_not_end_a_warning_of_few_replies(stock: Stock) -> None:
    stock.clients("Acme")
    mailed(stock, "acme", 1_000, 2)
    few = [("acme", "0.20 % replies to 1,000 emails sent in 7 days, 0.3 % are expected")]
    for days in range(3):
        assert problems(replied(stock, YESTERDAY + days * ONE_DAY)) == few
    found = replied(stock, YESTERDAY + 3 * ONE_DAY)
    assert "Not judged: 1 with a day of the week unknown." in found.description


def test_a_client_may_have_its_own_threshold_of_replies(stock: Stock) -> None:
    limits = {"Acme": "0.1", "Birch": "0.11", "Cedar": "0", "Dale": "2.5"}
    for name, limit in limits.items():
        stock.clients(name, min_reply_rate=Decimal(limit))
    for workspace, replies in (("acme", 1), ("birch", 1), ("cedar", 0), ("dale", 24)):
        mailed(stock, workspace, 1_000, replies)
    assert problems(replied(stock)) == [
        ("dale", "2.40 % replies to 1,000 emails sent in 7 days, 2.5 % are expected"),
        ("birch", "0.10 % replies to 1,000 emails sent in 7 days, 0.11 % are expected"),
    ]


def test_each_check_is_one_query(stock: Stock) -> None:
    statements: list[str] = []

    def note(*args: Any) -> None:
        statements.append(args[2])

    event.listen(stock.engine, "before_cursor_execute", note)
    try:
        for check in (paced, replied):
            statements.clear()
            check(stock)
            assert len(statements) == 1
    finally:
        event.remove(stock.engine, "before_cursor_execute", note)


def test_the_defaults_are_15_percent_behind_and_three_replies_to_a_thousand_emails() -> None:
    assert Decimal(15) == DEFAULT_MAX_SENDING_SHORTFALL
    assert Decimal("0.3") == DEFAULT_MIN_REPLY_RATE


@pytest.mark.parametrize(
    ("check", "sentence"),
    [
        ("sending_pace", "It is behind its sending target"),
        ("reply_rate", "Few of its emails were replied to"),
    ],
)
def test_the_dashboard_has_a_sentence_for_clients_beyond_the_rows_that_are_stored(
    check: str, sentence: str
) -> None:
    failing = FailingCheck(check, "WARN", [], ["acme"], None)
    [problem] = problems_by_client([failing])["acme"]
    assert problem.text == sentence
