"""Around local midnight, where clocks, months and years change: the right day's and month's row."""

from datetime import date, timedelta

import pytest

from kpi_pipeline.domain.calendar import day_start
from kpi_pipeline_tests.domain.bodies import CHICAGO, lead
from kpi_pipeline_tests.inbox.support import Clients

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
FIRST = {
    "a day like others": date(2026, 3, 18),
    "a day of 23 hours": date(2026, 3, 8),
    "the day after it": date(2026, 3, 9),
    "a day of 25 hours": date(2026, 11, 1),
    "the day after that": date(2026, 11, 2),
    "a month": date(2026, 4, 1),
    "a year": date(2027, 1, 1),
    "the month after a short one": date(2026, 3, 1),
}


def stock_until(clients: Clients, yesterday: date, day: date) -> None:
    """3 leads a day since the month before, as of an hour before midnight; a row of yesterday."""
    first = (yesterday.replace(day=1) - DAY).replace(day=1)
    as_of = day_start(day, CHICAGO) - timedelta(hours=1)
    clients.stock(first=first, last=yesterday, as_of=as_of, shown=[yesterday])


@pytest.mark.parametrize("name", FIRST)
def test_a_lead_before_midnight_and_one_after_it_count_on_their_own_days_and_months(
    clients: Clients, name: str
) -> None:
    day = FIRST[name]
    yesterday, midnight = day - DAY, day_start(day, CHICAGO)
    stock_until(clients, yesterday, day)
    closed = 3 * yesterday.day
    new_month = day.day == 1

    clients.at = midnight - SECOND
    clients.ingest(lead(1, arrived_at=clients.at))
    assert clients.today == yesterday
    assert list(clients.rows()) == [("harbor", yesterday)]
    assert clients.number("positive_replies_today", day=yesterday) == 3 + 1
    assert clients.number("positive_replies_mtd", day=yesterday) == closed + 1

    clients.at = midnight + SECOND
    clients.ingest(lead(2, arrived_at=clients.at))
    assert clients.today == day
    assert clients.number("positive_replies_mtd", day=yesterday) == closed + 1
    row = clients.rows()["harbor", day]
    assert (row["positive_replies_today"], row["emails_sent_today"]) == (1, 0)
    assert row["positive_replies_mtd"] == 1 + (0 if new_month else closed + 1)
    assert row["emails_sent_mtd"] == (0 if new_month else 100 * yesterday.day)
    assert row["positive_replies_last_7_days"] == 3 * 6 + 2
    if new_month:
        assert row["positive_replies_last_month"] == closed + 1
    assert clients.events("business_date") == [yesterday, day]


@pytest.mark.parametrize("name", FIRST)
def test_a_lead_of_before_midnight_that_is_stored_after_it_counts_on_the_day_before(
    clients: Clients, name: str
) -> None:
    day = FIRST[name]
    yesterday, midnight = day - DAY, day_start(day, CHICAGO)
    stock_until(clients, yesterday, day)
    clients.at = midnight + SECOND
    first, late = lead(1, arrived_at=clients.at), lead(2, arrived_at=midnight - SECOND)
    clients.ingest(first)
    clients.ingest(late)
    closed = 3 * yesterday.day + 1
    assert clients.number("positive_replies_mtd", day=yesterday) == closed
    month_so_far = 1 if day.day == 1 else closed + 1
    assert clients.number("positive_replies_mtd", day=day) == month_so_far
    assert set(clients.events("status")) == {"applied"}


def test_utc_midnight_is_no_midnight(clients: Clients) -> None:
    day = date(2026, 3, 18)
    clients.stock(last=day, as_of=day_start(day, CHICAGO))
    utc_midnight = day_start(day, CHICAGO) + timedelta(hours=19)
    for number, at in enumerate((utc_midnight - SECOND, utc_midnight + SECOND), start=1):
        clients.at = at
        clients.ingest(lead(number, arrived_at=at))
    assert list(clients.rows()) == [("harbor", day)]
    assert clients.number("positive_replies_mtd", day=day) == 3 * 18 + 2
