"""The day on which an event counts: by the time in its body if that fits, else by its arrival."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from kpi_pipeline.domain.events.event import EventStatus
from kpi_pipeline_tests.domain.bodies import ARRIVED, CHICAGO, content, parsed

EARLIER = datetime(2026, 3, 15, 17, 30, tzinfo=UTC)
TIME = "2026-03-15T17:30:00.000000Z"
IDS: dict[str, Any] = {
    "lead": {"id": 1},
    "campaign": {"id": 2},
    "reply": {"id": 3},
    "scheduled_email": {"id": 4},
    "campaign_event": {"id": 5},
}


def with_times(**members: dict[str, Any]) -> dict[str, Any]:
    return {name: {**ids, **members.get(name, {})} for name, ids in IDS.items()}


@pytest.mark.parametrize(
    ("event_type", "data"),
    [
        ("email_sent", with_times(scheduled_email={"sent_at": TIME})),
        ("lead_replied", with_times(reply={"date_received": TIME})),
        ("email_bounced", with_times(reply={"date_received": TIME})),
        *(
            (name, with_times(campaign_event={"type": name.upper(), "created_at": TIME}))
            for name in ("email_sent", "lead_replied", "lead_interested", "lead_unsubscribed")
        ),
        *(
            (name, with_times(campaign_event={"type": recorded_as, "created_at": TIME}))
            for name, recorded_as in (
                ("email_sent", "sent"),
                ("lead_replied", "replied"),
                ("lead_replied", "reply"),
                ("lead_interested", "interested"),
                ("email_bounced", "bounce"),
                ("email_bounced", " Bounced"),
                ("lead_unsubscribed", "unsubscribe"),
                ("lead_unsubscribed", "unsubscribed"),
            )
        ),
    ],
)
def test_an_event_counts_on_the_day_of_its_own_time(event_type: str, data: dict[str, Any]) -> None:
    event = parsed(content(event_type, data))
    assert (event.happened_at, event.business_date) == (EARLIER, date(2026, 3, 15))


@pytest.mark.parametrize(
    ("event_type", "data"),
    [
        ("lead_interested", with_times(reply={"date_received": TIME})),
        ("lead_interested", with_times(scheduled_email={"sent_at": TIME})),
        (
            "lead_interested",
            with_times(
                reply={"date_received": TIME},
                campaign_event={"type": "replied", "created_at": TIME},
            ),
        ),
        (
            "lead_interested",
            with_times(campaign_event={"type": "lead_replied", "created_at": TIME}),
        ),
        ("lead_interested", with_times(campaign_event={"type": "sent", "created_at": TIME})),
        ("email_bounced", with_times(campaign_event={"type": "sent", "created_at": TIME})),
        ("lead_unsubscribed", with_times(campaign_event={"type": "reply", "created_at": TIME})),
        ("lead_interested", with_times(campaign_event={"created_at": TIME})),
        ("lead_interested", with_times(campaign_event={"type": ["x"], "created_at": TIME})),
        ("lead_unsubscribed", with_times(scheduled_email={"sent_at": TIME})),
        ("email_bounced", with_times(scheduled_email={"sent_at": TIME})),
    ],
)
def test_a_lead_counts_when_it_became_interested_and_not_when_it_replied(
    event_type: str, data: dict[str, Any]
) -> None:
    event = parsed(content(event_type, data))
    assert (event.status, event.happened_at) == (EventStatus.RECEIVED, None)
    assert event.business_date == date(2026, 3, 18)


def test_a_bounce_of_the_day_before_yesterday_counts_on_its_own_day() -> None:
    """As one was delivered live: 30 hours late, with `bounce` as the type of its record."""
    data = {
        "reply": {"id": 800, "type": "Bounced", "folder": "Bounced", "automated_reply": True},
        "campaign_event": {"id": 8, "type": "bounce", "created_at": "2026-03-17T14:00:00.000000Z"},
        "scheduled_email": {"id": 40, "lead_id": 1},
        "campaign": {"id": 2},
        "lead": {"id": 1, "email": "l@prospect.example"},
    }
    event = parsed(content("EMAIL_BOUNCED", data))
    assert event.happened_at == ARRIVED - timedelta(hours=30)
    assert event.business_date == date(2026, 3, 17)


def test_a_row_of_the_feed_is_the_event_of_its_payload_at_its_recorded_time() -> None:
    """As `GET /api/events` shows what a webhook carries; the key of both is the same."""
    data = with_times(
        reply={"date_received": "2026-03-15T15:00:00Z"},
        campaign_event={"type": "replied", "created_at": "2026-03-15T15:00:00Z"},
    )
    payload = content("LEAD_INTERESTED", data)
    row = {"id": 12345, "uuid": "0b0e8a3e", "payload": payload, "created_at": TIME}
    event, by_webhook = parsed(row), parsed(payload)
    assert event.idempotency_key == by_webhook.idempotency_key
    assert (event.status, event.happened_at) == (EventStatus.RECEIVED, EARLIER)
    assert event.business_date == date(2026, 3, 15)
    assert by_webhook.happened_at is None
    # What is no row of the feed stays malformed.
    assert parsed({"payload": [payload]}).status is EventStatus.INVALID
    assert parsed({"event": None, "payload": payload}).status is EventStatus.INVALID


def test_the_time_of_the_record_comes_before_that_of_the_mail() -> None:
    """A reply reaches the mailbox first; its record, and the fact that counts it, follow later."""
    data = with_times(
        reply={"date_received": "2026-03-15T17:24:00Z"},
        campaign_event={"type": "replied", "created_at": TIME},
    )
    assert parsed(content("lead_replied", data)).happened_at == EARLIER


@pytest.mark.parametrize(
    "value",
    [
        "2026-03-15T17:30:00",
        "2026-03-15",
        "last Sunday",
        "",
        "1999-12-31T23:59:59Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "2026-03-18T20:05:01Z",
        "2026-02-30T10:00:00Z",
        1_773_595_800,
        None,
        {"date": TIME},
    ],
)
def test_an_implausible_time_is_replaced_by_the_arrival(value: object) -> None:
    event = parsed(content("lead_replied", with_times(reply={"date_received": value})))
    assert (event.status, event.happened_at) == (EventStatus.RECEIVED, None)
    assert event.business_date == date(2026, 3, 18)


def test_the_second_time_is_taken_if_the_first_is_implausible() -> None:
    data = with_times(
        reply={"date_received": TIME},
        campaign_event={"type": "replied", "created_at": "soon"},
    )
    assert parsed(content("lead_replied", data)).happened_at == EARLIER


def test_a_time_that_is_some_minutes_ahead_becomes_the_arrival() -> None:
    ahead = (ARRIVED + timedelta(minutes=5)).isoformat()
    event = parsed(content("lead_replied", with_times(reply={"date_received": ahead})))
    assert event.happened_at == ARRIVED


@pytest.mark.parametrize(
    ("time", "day"),
    [
        ("2026-03-16T04:59:59Z", date(2026, 3, 15)),
        ("2026-03-16T05:00:00Z", date(2026, 3, 16)),
        ("2026-03-15T23:59:59-05:00", date(2026, 3, 15)),
        ("2026-03-16T00:00:00-05:00", date(2026, 3, 16)),
        ("2026-03-16T14:30:00+14:00", date(2026, 3, 15)),
    ],
)
def test_an_event_after_7_pm_counts_on_that_day_and_not_on_tomorrow(time: str, day: date) -> None:
    data = with_times(reply={"date_received": time})
    assert parsed(content("lead_replied", data)).business_date == day
    # And by its arrival, if it has no time.
    arrived_at = datetime.fromisoformat(time)
    assert parsed(content("lead_replied", IDS), arrived_at).business_date == day


@pytest.mark.parametrize(
    ("tz", "day"),
    [
        (CHICAGO, date(2026, 3, 18)),
        (ZoneInfo("Asia/Tokyo"), date(2026, 3, 19)),
        (ZoneInfo("UTC"), date(2026, 3, 18)),
    ],
)
def test_the_day_is_that_of_the_given_time_zone(tz: ZoneInfo, day: date) -> None:
    for sent in (content("lead_replied", IDS), content("email_opened"), b"no event"):
        assert parsed(sent, tz=tz).business_date == day
