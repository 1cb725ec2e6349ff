"""The check `webhooks_delivered` where the event feed is read: event by event, as they happen."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from kpi_pipeline.checks.outcome import Outcome, Severity
from kpi_pipeline.checks.webhook_events import webhooks_delivered
from kpi_pipeline.db.events.feed import FeedState, store_feed_states
from kpi_pipeline_tests.checks.support import CHICAGO, TODAY, YESTERDAY, Stock, local, problems
from kpi_pipeline_tests.checks.test_webhooks_delivered import MONDAY

NOW = local(TODAY, 15)
A_MOMENT_AGO = NOW - timedelta(minutes=4)


def feed_was_read(
    stock: Stock, workspace: str, read_at: datetime | None = A_MOMENT_AGO, **changed: Any
) -> None:
    state = FeedState(workspace, "lead_interested", A_MOMENT_AGO, read_at, **changed)
    with stock.engine.begin() as connection:
        store_feed_states(connection, [state])


def from_feed(stock: Stock, workspace: str, at: datetime, number: int = 1, **changed: Any) -> None:
    """Leads that only the feed has, recorded at that moment."""
    day = at.astimezone(CHICAGO).date()
    row = {"source": "feed", "deliveries": 0, "recorded_at": at, "happened_at": at, **changed}
    stock.events(workspace, day, number, **row)


def checked(stock: Stock, instances: Collection[str] = ("main",)) -> Outcome:
    with stock.engine.connect() as connection:
        return webhooks_delivered(connection, instances, now=NOW, timezone=CHICAGO, until=YESTERDAY)


def ids(stock: Stock, workspace: str) -> list[int]:
    statement = "SELECT id FROM webhook_events WHERE workspace = :key AND deliveries = 0 ORDER BY 1"
    with stock.engine.connect() as connection:
        return list(connection.scalars(text(statement), {"key": workspace}))


@pytest.fixture(autouse=True)
def _with_feed(stock: Stock) -> None:
    """Two clients whose feed is read; webhooks arrive since Monday noon."""
    stock.clients("Acme", "Birch")
    stock.events("acme", MONDAY)
    for workspace in ("acme", "birch"):
        feed_was_read(stock, workspace)


def test_a_dropped_lead_is_named_while_it_is_missing_and_no_more_once_it_is_delivered(
    stock: Stock,
) -> None:
    from_feed(stock, "birch", local(TODAY, 10), 3)
    stock.events("birch", TODAY, 2, recorded_at=local(TODAY, 11))
    first, second, third = ids(stock, "birch")

    found = checked(stock)

    assert found.severity is Severity.WARN
    assert found.problems == [
        {
            "workspace": "birch",
            "instance": "main",
            "day": "2026-03-18",
            "counted": 5,
            "delivered": 2,
            "problem": f"3 positive replies not delivered: events {first}, {second}, {third}",
        }
    ]
    assert found.description.startswith("Webhooks and Email Bison differ for birch.")
    with stock.engine.begin() as connection:
        connection.execute(text("UPDATE webhook_events SET deliveries = 1"))
    assert checked(stock).passed


def test_a_lead_may_take_15_minutes_to_be_delivered(stock: Stock) -> None:
    from_feed(stock, "birch", NOW - timedelta(minutes=14))
    assert checked(stock).passed
    from_feed(stock, "birch", NOW - timedelta(minutes=16))
    assert problems(checked(stock)) == [
        ("birch", f"1 positive reply not delivered: event {ids(stock, 'birch')[1]}")
    ]


def test_leads_before_the_first_webhook_were_not_dropped(stock: Stock) -> None:
    from_feed(stock, "birch", local(MONDAY, 11))
    assert checked(stock).passed
    from_feed(stock, "birch", local(MONDAY, 13))
    assert problems(checked(stock), "day") == [("birch", "2026-03-16")]


def test_where_the_feed_is_read_counts_by_day_are_not_compared(stock: Stock) -> None:
    stock.facts("birch", YESTERDAY, interested=3)
    stock.events("acme", YESTERDAY)
    assert checked(stock).passed
    with stock.engine.begin() as connection:
        connection.execute(text("DELETE FROM event_feed WHERE workspace = 'birch'"))
    assert problems(checked(stock)) == [("birch", "3 positive replies not delivered")]


def test_a_feed_that_was_not_read_for_an_hour_is_named_with_the_reason(stock: Stock) -> None:
    with stock.engine.begin() as connection:
        connection.execute(text("DELETE FROM event_feed"))
    feed_was_read(stock, "acme")
    feed_was_read(stock, "birch", None, problem="birch: GET /api/events answered 503.")

    found = checked(stock)

    assert problems(found) == [("birch", "birch: GET /api/events answered 503.")]
    assert found.description.startswith("The event feed of birch was not read for an hour")


def test_a_feed_that_is_not_polled_any_more_is_no_problem(stock: Stock) -> None:
    for ago in (timedelta(minutes=90), timedelta(days=1)):
        with stock.engine.begin() as connection:
            statement = "UPDATE event_feed SET tried_at = :at, read_at = :at"
            connection.execute(text(statement), {"at": NOW - ago})
        assert checked(stock).passed


def test_a_feed_that_failed_for_less_than_an_hour_is_no_problem(stock: Stock) -> None:
    feed_was_read(stock, "birch", NOW - timedelta(minutes=50), problem="birch: a time-out.")
    assert checked(stock).passed


def test_without_webhooks_the_feed_brings_the_leads(stock: Stock) -> None:
    from_feed(stock, "birch", local(TODAY, 10), 3)
    found = checked(stock, ())
    assert found.passed
    assert found.description == (
        "No instance has a KPI_WEBHOOK_SECRET, so no webhooks are set up. "
        "The event feed brings the positive replies."
    )


def test_leads_of_the_feed_alone_do_not_break_the_silence_of_webhooks(stock: Stock) -> None:
    from_feed(stock, "birch", local(TODAY, 10), 3)
    stock.facts("birch", TODAY, interested=3, as_of=NOW - timedelta(hours=1))
    assert checked(stock).severity is Severity.ERROR
