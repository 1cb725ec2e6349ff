"""Events that can show in no row any more are deleted, and no number changes by it."""

from datetime import UTC, date, datetime, timedelta

import pytest

from kpi_pipeline.db.recompute import update_rows
from kpi_pipeline.domain.events.event import Event
from kpi_pipeline.inbox import retention
from kpi_pipeline.inbox.retention import delete_finished_events
from kpi_pipeline_tests.db.stocked import TODAY, imported, record
from kpi_pipeline_tests.domain.bodies import content, email_sent, parsed
from kpi_pipeline_tests.inbox.support import Clients

HOUR = timedelta(hours=1)
JANUARY_31 = date(2026, 1, 31)
EVENING = datetime(2026, 2, 1, 3, 0, tzinfo=UTC)
SHOWN = [JANUARY_31, date(2026, 2, 1), date(2026, 2, 28), date(2026, 3, 1), TODAY]
UNTIMED = {"updated_at", "source"}


@pytest.fixture
def stocked(clients: Clients) -> Clients:
    """Facts since the first of January, and rows of five days."""
    for workspace in ("harbor", "quay"):
        clients.stock(workspace, date(2026, 1, 1), shown=SHOWN)
    return clients


def mail(number: int, sent_at: datetime) -> Event:
    """A mail whose event arrives at once."""
    return email_sent(number, sent_at, sent_at)


def recomputed(clients: Clients) -> list[dict[str, object]]:
    """All stored rows, computed again from their inputs."""
    with clients.engine.begin() as connection:
        workspaces = ["harbor", "quay"]
        update_rows(connection, workspaces, since=date.min, zone=clients.tz, source="recompute")
    return [
        {name: value for name, value in row.items() if name not in UNTIMED}
        for row in clients.rows().values()
    ]


def test_an_event_that_the_facts_hold_is_deleted_after_the_month_that_follows_its_own(
    stocked: Clients,
) -> None:
    stocked.ingest(mail(1, EVENING), mail(2, EVENING + 24 * HOUR))
    assert stocked.events("business_date") == [JANUARY_31, date(2026, 2, 1)]
    rows = recomputed(stocked)
    stocked.at = datetime(2026, 3, 1, 5, 59, tzinfo=UTC)
    assert delete_finished_events(stocked.inbox()) == 0, "in Chicago it is February yet"
    stocked.at = datetime(2026, 3, 18, 20, 0, tzinfo=UTC)
    assert delete_finished_events(stocked.inbox()) == 1
    assert stocked.events("business_date") == [date(2026, 2, 1)]
    assert recomputed(stocked) == rows


def test_an_event_that_counts_because_its_day_was_not_fetched_since_stays(clients: Clients) -> None:
    clients.stock(first=JANUARY_31, last=JANUARY_31, as_of=EVENING - HOUR)
    clients.stock(first=date(2026, 1, 1), last=date(2026, 1, 30))
    clients.stock(first=date(2026, 2, 1), shown=SHOWN)
    clients.ingest(mail(1, EVENING))
    rows = recomputed(clients)
    assert clients.number("emails_sent_today", day=JANUARY_31) == 101

    assert delete_finished_events(clients.inbox()) == 0
    assert recomputed(clients) == rows
    # Once the day is fetched again, its facts hold the mail.
    clients.stock(first=JANUARY_31, last=JANUARY_31, sent=101)
    assert delete_finished_events(clients.inbox()) == 1
    assert clients.number("emails_sent_today", day=JANUARY_31) == 101


@pytest.mark.parametrize("neighbour", [date(2026, 1, 30), date(2026, 2, 1)])
def test_an_event_that_would_count_under_another_zone_stays(
    clients: Clients, neighbour: date
) -> None:
    clients.stock(first=neighbour, last=neighbour, as_of=EVENING - HOUR)
    clients.stock(first=date(2026, 1, 1), without=[neighbour], shown=[TODAY])
    clients.ingest(mail(1, EVENING))
    assert clients.events("business_date") == [JANUARY_31]
    assert delete_finished_events(clients.inbox()) == 0
    clients.stock(first=neighbour, last=neighbour)
    assert delete_finished_events(clients.inbox()) == 1


def test_an_event_of_a_day_without_facts_stays(clients: Clients) -> None:
    clients.stock(first=date(2026, 2, 1), shown=[TODAY])
    clients.ingest(mail(1, EVENING))
    assert delete_finished_events(clients.inbox()) == 0


def test_facts_of_the_future_hold_no_event(stocked: Clients) -> None:
    stocked.ingest(mail(1, EVENING))
    stocked.sql("UPDATE raw_bison_stats SET as_of = :at", at=stocked.at + HOUR)
    assert delete_finished_events(stocked.inbox()) == 0


@pytest.mark.parametrize(
    ("status", "deleted"),
    [
        ("applied", True),
        ("ignored", True),
        ("test", True),
        ("invalid", True),
        ("unmatched", True),
        ("set_aside", True),
        ("received", False),
    ],
)
def test_old_events_are_deleted_in_every_status_but_received(
    stocked: Clients, status: str, deleted: bool
) -> None:
    stocked.ingest(mail(1, EVENING))
    stocked.sql("UPDATE webhook_events SET status = :status", status=status)
    assert delete_finished_events(stocked.inbox()) == int(deleted)
    assert stocked.events("status") == [] if deleted else [status]


def test_what_counts_for_nothing_is_deleted_without_facts(clients: Clients) -> None:
    clients.ingest(
        parsed(content("email_opened"), EVENING),
        parsed(b"no event", EVENING),
        parsed(content(workspace_id=109), EVENING),
    )
    assert clients.events("status") == ["ignored", "unmatched", "invalid"]
    assert delete_finished_events(clients.inbox()) == 3


def test_more_events_than_a_page_are_deleted_and_all_others_stay(
    stocked: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_BATCH", 3)
    imported(stocked.engine, stocked.vault, record(103, "Newcomer"))
    stocked.ingest(*(mail(number, EVENING) for number in range(1, 6)))
    stocked.ingest(*(mail(number, stocked.at) for number in range(6, 9)))
    stocked.ingest(*(mail(number, EVENING) for number in range(9, 12)))
    assert delete_finished_events(stocked.inbox()) == 8
    assert stocked.events("business_date") == [TODAY] * 3
    assert delete_finished_events(stocked.inbox()) == 0
