"""Events count by when they happened: a delivery that comes late adds nothing that facts hold."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.domain.events.event import Event, EventStatus
from kpi_pipeline_tests.db.stocked import AS_OF, TODAY
from kpi_pipeline_tests.domain.bodies import content, parsed
from kpi_pipeline_tests.inbox.support import Clients

# The facts of all days are five minutes old.
NOW = AS_OF + timedelta(minutes=5)
YESTERDAY = TODAY - timedelta(days=1)


@pytest.fixture
def clients(clients: Clients) -> Clients:
    """Harbor with facts and rows of each day, 100 mails and 5 bounces a day, as of AS_OF."""
    clients.at = NOW
    fetched(clients, AS_OF)
    return clients


def fetched(clients: Clients, as_of: datetime, sent: int = 100) -> None:
    """What a sync stores that asked at `as_of`."""
    clients.stock(shown=days_between(date(2026, 3, 1), TODAY), as_of=as_of, sent=sent)


def written(instant: datetime) -> str:
    return f"{instant:%Y-%m-%dT%H:%M:%S.000000Z}"


def mail(sent_at: datetime, number: int = 9002) -> Event:
    """A mail, as a live instance reports it."""
    data: Mapping[str, Any] = {
        "scheduled_email": {
            "id": number,
            "lead_id": 1,
            "status": "sent",
            "scheduled_date_est": written(sent_at),
            "local_timezone": "America/New_York",
            "sent_at": written(sent_at),
            "interested": None,
        },
        "campaign_event": {
            "id": 2,
            "type": "sent",
            "created_at_local": written(sent_at),
            "local_timezone": "America/New_York",
            "created_at": written(sent_at),
        },
        "lead": {"id": 632586, "email": "rob@prospect.example", "status": "interested"},
        "campaign": {"id": 42, "name": "E"},
        "sender_email": {"id": 12, "email": "dev@sender.example", "name": "Dev Example"},
    }
    return parsed(content("EMAIL_SENT", data), NOW)


def bounce(bounced_at: datetime) -> Event:
    data: Mapping[str, Any] = {
        "reply": {"id": 800, "type": "Bounced", "folder": "Bounced", "automated_reply": True},
        "campaign_event": {"id": 8, "type": "bounce", "created_at": written(bounced_at)},
        "scheduled_email": {"id": 40, "lead_id": 1},
        "campaign": {"id": 2},
        "lead": {"id": 1, "email": "l@prospect.example"},
    }
    return parsed(content("EMAIL_BOUNCED", data), NOW)


def test_a_mail_of_three_hours_ago_that_the_facts_hold_adds_nothing(clients: Clients) -> None:
    before = clients.rows()
    (receipt,) = clients.ingest(mail(NOW - timedelta(hours=3)))
    assert receipt.status is EventStatus.APPLIED
    for column in ("emails_sent_today", "emails_sent_mtd", "emails_sent_last_30_days"):
        assert clients.number(column) == before["harbor", TODAY][column]
    # Nor when it is sent once more, or the facts are fetched again.
    clients.ingest(mail(NOW - timedelta(hours=3)))
    fetched(clients, NOW + timedelta(hours=1))
    assert clients.number("emails_sent_today") == 100


def test_a_mail_of_three_hours_ago_counts_once_on_older_facts(clients: Clients) -> None:
    clients.sql("UPDATE raw_bison_stats SET as_of = as_of - interval '4 hours'")
    clients.ingest(mail(NOW - timedelta(hours=3)))
    assert clients.number("emails_sent_today") == 101
    fetched(clients, NOW + timedelta(hours=1), sent=101)
    assert clients.number("emails_sent_today") == 101


def test_of_many_deliveries_those_after_the_facts_count(clients: Clients) -> None:
    minutes = [-180, -6, -5, -4, -1, 0]
    events = [mail(NOW + timedelta(minutes=it), 100 + number) for number, it in enumerate(minutes)]
    clients.ingest(*events)
    # What happened at the very moment of the request is in its answer.
    assert clients.number("emails_sent_today") == 100 + 3


@pytest.mark.parametrize("held", [True, False])
def test_a_bounce_of_the_day_before_counts_on_its_own_day(clients: Clients, held: bool) -> None:
    """Thirty hours late: on yesterday, and only if yesterday's facts are older than it."""
    if not held:
        clients.sql("UPDATE raw_bison_stats SET as_of = as_of - interval '40 hours'")
    clients.ingest(bounce(NOW - timedelta(hours=30)))
    assert clients.events("business_date") == [YESTERDAY]
    added = 0 if held else 1
    for day in (YESTERDAY, TODAY):
        assert clients.number("bounced_mtd", day=day) == 5 * day.day + added
    day_before = YESTERDAY - timedelta(days=1)
    assert clients.number("bounced_mtd", day=day_before) == 5 * day_before.day
