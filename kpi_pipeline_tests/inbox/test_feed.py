"""Events of the feed and of webhooks are the same events; the feed knows their times best."""

import json
from datetime import UTC, date, datetime, time, timedelta

import pytest

from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.domain.events.event import Event, EventSource
from kpi_pipeline.domain.events.parse import parse_event
from kpi_pipeline.inbox.feed import FeedIngested, ingest_feed
from kpi_pipeline_tests.db.stocked import AS_OF, TODAY
from kpi_pipeline_tests.domain.bodies import CHICAGO, content, lead, parsed
from kpi_pipeline_tests.inbox.support import Clients, fail_rows_above

NOW = AS_OF + timedelta(hours=1)
YESTERDAY = TODAY - timedelta(days=1)
MTD = "positive_replies_mtd"
# Of the stock: three a day.
BEFORE = 3 * TODAY.day


@pytest.fixture
def clients(clients: Clients) -> Clients:
    """Harbor with facts and rows of each day of the month, as of AS_OF; an hour has passed."""
    clients.at = NOW
    clients.stock(shown=days_between(date(2026, 3, 1), TODAY), as_of=AS_OF)
    return clients


def feed_row(
    recorded_at: datetime, number: int = 7, uuid: str = "4f0c", read_at: datetime = NOW
) -> Event:
    """A row of the feed: lead `number` became interested."""
    data = {"lead": {"id": number}, "campaign": {"id": 3}}
    row = {
        "id": 1,
        "uuid": uuid,
        "payload": content("LEAD_INTERESTED", data),
        "created_at": recorded_at.isoformat(),
    }
    return parse_event(
        json.dumps(row).encode(),
        instance="main",
        source=EventSource.FEED,
        arrived_at=read_at,
        tz=CHICAGO,
    )


def read(clients: Clients, *events: Event, realtime: bool = True) -> FeedIngested:
    return ingest_feed(clients.inbox(realtime=realtime), "harbor", events)


def facts_of_yesterday_at_noon(clients: Clients) -> datetime:
    """Let yesterday's facts be those of noon, so that its evening is not in them."""
    noon = datetime.combine(YESTERDAY, time(12), CHICAGO).astimezone(UTC)
    clients.sql("UPDATE raw_bison_stats SET as_of = :at WHERE date = :day", at=noon, day=YESTERDAY)
    return noon


def stored(clients: Clients) -> list[tuple[object, ...]]:
    columns = ("source", "deliveries", "feed_uuid", "recorded_at", "business_date", "status")
    return clients.events(*columns)


def test_a_lead_that_only_the_feed_has_counts_at_its_recorded_time(clients: Clients) -> None:
    recorded = AS_OF + timedelta(minutes=5)

    assert read(clients, feed_row(recorded)) == FeedIngested(new=1)

    assert stored(clients) == [("feed", 0, "4f0c", recorded, TODAY, "applied")]
    assert clients.number(MTD) == BEFORE + 1


def test_a_lead_that_the_facts_hold_already_counts_once(clients: Clients) -> None:
    read(clients, feed_row(AS_OF - timedelta(minutes=5)))

    assert clients.number(MTD) == BEFORE


def test_an_event_of_a_webhook_and_of_the_feed_is_one_and_gains_id_and_time(
    clients: Clients,
) -> None:
    clients.ingest(lead(7, arrived_at=NOW))
    recorded = NOW - timedelta(minutes=2)

    assert read(clients, feed_row(recorded)) == FeedIngested(moved=1)
    assert read(clients, feed_row(recorded)) == FeedIngested()

    assert stored(clients) == [("webhook", 1, "4f0c", recorded, TODAY, "applied")]
    assert clients.events("happened_at") == [recorded]
    assert clients.number(MTD) == BEFORE + 1


def test_a_webhook_after_the_feed_is_a_delivery_of_the_same_event(clients: Clients) -> None:
    recorded = NOW - timedelta(minutes=2)
    read(clients, feed_row(recorded))

    clients.ingest(lead(7, arrived_at=NOW))

    assert stored(clients) == [("feed", 1, "4f0c", recorded, TODAY, "applied")]
    assert clients.events("last_delivered_at") == [NOW]
    assert clients.number(MTD) == BEFORE + 1


def test_reading_the_feed_again_is_no_delivery_and_changes_no_row(clients: Clients) -> None:
    row = feed_row(NOW - timedelta(minutes=2))
    read(clients, row)
    before = clients.rows(), clients.events("id", "deliveries")

    assert read(clients, row, row) == FeedIngested()

    assert (clients.rows(), clients.events("id", "deliveries")) == before


def test_a_recorded_time_before_the_fetch_takes_the_event_out_of_the_rows(
    clients: Clients,
) -> None:
    # Without a time in its body, the late webhook counts as an event after the fetch.
    clients.ingest(lead(7, arrived_at=NOW))
    assert clients.number(MTD) == BEFORE + 1

    read(clients, feed_row(AS_OF - timedelta(minutes=1)))

    assert clients.number(MTD) == BEFORE, "the facts hold it"


def test_a_recorded_time_of_another_day_moves_the_event_and_the_rows_of_both_days(
    clients: Clients,
) -> None:
    noon = facts_of_yesterday_at_noon(clients)
    clients.ingest(lead(7, arrived_at=NOW))
    today = "positive_replies_today"
    assert [clients.number(today, day=day) for day in (YESTERDAY, TODAY)] == [3, 4]

    read(clients, feed_row(noon + timedelta(hours=3)))

    assert [clients.number(today, day=day) for day in (YESTERDAY, TODAY)] == [4, 3]
    assert clients.number(MTD) == BEFORE + 1
    assert clients.events("business_date") == [YESTERDAY]


def test_the_first_of_two_records_of_one_lead_counts_in_whatever_order_they_come(
    clients: Clients,
) -> None:
    first, second = NOW - timedelta(minutes=30), NOW - timedelta(minutes=3)
    read(clients, feed_row(second, uuid="second"))
    read(clients, feed_row(second, uuid="second"), feed_row(first, uuid="first"))
    read(clients, feed_row(second, uuid="second"))

    assert clients.events("feed_uuid", "recorded_at") == [("first", first)]


def test_with_realtime_off_events_of_the_feed_are_only_stored(clients: Clients) -> None:
    read(clients, feed_row(NOW - timedelta(minutes=2)), realtime=False)

    assert clients.events("status") == ["received"]
    assert clients.number(MTD) == BEFORE


def test_rows_that_can_not_be_computed_keep_the_times_as_they_were(clients: Clients) -> None:
    noon = facts_of_yesterday_at_noon(clients)
    clients.ingest(lead(7, arrived_at=NOW))
    before = clients.rows()
    fail_rows_above(clients.engine, "harbor", 3)

    assert read(clients, feed_row(noon + timedelta(hours=3))) == FeedIngested()

    assert clients.rows() == before
    assert clients.events("feed_uuid", "business_date") == [(None, TODAY)]


def test_a_row_of_the_feed_in_a_webhook_is_a_delivery_with_id_and_time(clients: Clients) -> None:
    recorded = NOW - timedelta(minutes=2)
    row = feed_row(recorded)

    clients.ingest(parsed(row.body, NOW))

    assert stored(clients) == [("webhook", 1, "4f0c", recorded, TODAY, "applied")]
