from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from kpi_pipeline.domain.events.event import EventStatus
from kpi_pipeline.inbox.replay import ReplayReport, replay
from kpi_pipeline_tests.db.stocked import AS_OF, TODAY, imported, record
from kpi_pipeline_tests.domain.bodies import content, email_sent, lead, parsed
from kpi_pipeline_tests.inbox.support import LATER, Clients, fail_rows_above

MONTH_SO_FAR = 3 * 18
OPENED = parsed(content("email_opened", {}), LATER)


@pytest.fixture
def stocked(clients: Clients) -> Clients:
    for workspace in ("harbor", "quay"):
        clients.stock(workspace, shown=[TODAY])
    return clients


def spoil(clients: Clients, status: str) -> None:
    """Let every stored event stand so, as an older version of the code would have left it."""
    clients.sql(
        "UPDATE webhook_events SET status = :status, metric = NULL, reason = 'Not understood.', "
        "idempotency_key = 'main ' || :status || ' ' || id",
        status=status,
    )


@pytest.mark.parametrize("status", ["received", "set_aside"])
def test_what_waits_or_was_set_aside_is_applied(stocked: Clients, status: str) -> None:
    stocked.ingest(lead(1, arrived_at=LATER), realtime=False)
    stocked.sql("UPDATE webhook_events SET status = :status, tries = 5", status=status)
    assert replay(stocked.inbox()) == ReplayReport(events=1, applied=1, left=0)
    assert stocked.number("positive_replies_mtd") == MONTH_SO_FAR + 1
    assert stocked.events("tries", "reason") == [(0, None)]


def test_an_unmatched_event_stays_until_its_client_exists(stocked: Clients) -> None:
    stocked.ingest(lead(1, 103, LATER))
    assert replay(stocked.inbox()) == ReplayReport(events=1, applied=0, left=1)
    imported(stocked.engine, stocked.vault, record(103, "Newcomer"))
    stocked.stock("newcomer")
    assert replay(stocked.inbox()) == ReplayReport(events=1, applied=1, left=0)
    assert stocked.number("positive_replies_mtd", "newcomer") == MONTH_SO_FAR + 1


@pytest.mark.parametrize("status", ["invalid", "ignored"])
def test_what_was_not_understood_and_is_now_counts_from_now_on(
    stocked: Clients, status: str
) -> None:
    yesterday, sent_at = TODAY - timedelta(days=1), AS_OF - timedelta(days=1)
    stocked.sql("DELETE FROM raw_bison_stats WHERE date = :yesterday", yesterday=yesterday)
    stocked.stock(first=yesterday, last=yesterday, as_of=sent_at - timedelta(hours=1))
    stocked.ingest(email_sent(1, sent_at, LATER), realtime=False)
    spoil(stocked, status)
    report = replay(stocked.inbox(), statuses=[EventStatus(status)])
    assert report == ReplayReport(events=1, applied=1, left=0)
    assert stocked.events("status", "metric", "reason", "business_date") == [
        ("applied", "sent", None, yesterday)
    ]
    assert stocked.number("emails_sent_mtd") == 100 * 18 + 1
    # Delivered once more, it is known by its new key.
    (receipt,) = stocked.ingest(email_sent(1, sent_at, LATER))
    assert not receipt.is_new
    assert stocked.number("emails_sent_mtd") == 100 * 18 + 1


def test_what_still_is_not_understood_or_counted_stays_as_it_is(stocked: Clients) -> None:
    stocked.ingest(parsed(b"no event", LATER), OPENED)
    before = stocked.events("status", "reason", "idempotency_key")
    statuses = list(EventStatus)
    assert replay(stocked.inbox(), statuses=statuses) == ReplayReport(events=2, applied=0, left=2)
    assert stocked.events("status", "reason", "idempotency_key") == before


def test_a_misdirected_event_is_not_counted_by_a_replay_either(stocked: Clients) -> None:
    stocked.ingest(lead(1, arrived_at=LATER, instance_url="https://emea.example"))
    assert replay(stocked.inbox()).applied == 0
    # Unless the addresses of the instances have been mended since.
    stocked.urls = {"main": "https://emea.example", "emea": "https://mail.example"}
    assert replay(stocked.inbox()).applied == 1
    assert stocked.number("positive_replies_mtd") == MONTH_SO_FAR + 1


def test_the_same_event_in_two_rows_counts_once_and_the_other_says_so(stocked: Clients) -> None:
    stocked.ingest(lead(1, arrived_at=LATER), realtime=False)
    spoil(stocked, "invalid")
    (twin,) = stocked.ingest(lead(1, arrived_at=LATER))
    for _ in range(2):
        assert replay(stocked.inbox()) == ReplayReport(events=1, applied=0, left=1)
        assert stocked.events("status", "reason") == [
            ("invalid", f"The same event as {twin.event_id}."),
            ("applied", None),
        ]
    assert stocked.number("positive_replies_mtd") == MONTH_SO_FAR + 1


def test_two_twins_that_are_both_understood_only_now_count_once(stocked: Clients) -> None:
    stocked.ingest(lead(1, arrived_at=LATER), realtime=False)
    spoil(stocked, "invalid")
    stocked.ingest(lead(1, arrived_at=LATER), realtime=False)
    spoil(stocked, "invalid")
    assert replay(stocked.inbox()) == ReplayReport(events=2, applied=1, left=1)
    assert stocked.number("positive_replies_mtd") == MONTH_SO_FAR + 1


def test_a_replay_of_everything_changes_no_number_however_often(stocked: Clients) -> None:
    events = [lead(1, 101, LATER), lead(2, 102, LATER), email_sent(1, AS_OF, LATER), OPENED]
    stocked.ingest(*events, lead(9, 109, LATER))
    left_out = {"updated_at"}
    numbers = [
        {name: value for name, value in row.items() if name not in left_out}
        for row in stocked.rows().values()
    ]
    columns = "id", "status", "business_date", "deliveries", "idempotency_key"
    before = stocked.events(*columns)
    for _ in range(2):
        report = replay(stocked.inbox(), statuses=list(EventStatus))
        assert report == ReplayReport(events=5, applied=3, left=2)
        assert stocked.events(*columns) == before
        assert [
            {name: value for name, value in row.items() if name not in left_out}
            for row in stocked.rows().values()
        ] == numbers


def test_an_event_keeps_its_day_when_the_time_zone_of_the_business_changes(
    stocked: Clients,
) -> None:
    late = datetime(2026, 3, 18, 4, 30, tzinfo=UTC)
    stocked.ingest(lead(1, arrived_at=late), realtime=False)
    assert stocked.events("business_date") == [date(2026, 3, 17)]
    stocked.tz = ZoneInfo("UTC")
    inbox = stocked.inbox()
    assert replay(inbox).applied == 1
    assert replay(inbox, statuses=[EventStatus.APPLIED]).applied == 1
    assert stocked.events("business_date") == [date(2026, 3, 17)]


def test_only_the_clients_the_time_and_the_statuses_that_were_chosen_are_replayed(
    stocked: Clients,
) -> None:
    minute = timedelta(minutes=1)
    stocked.at = LATER + 5 * minute
    stocked.ingest(
        lead(1, 101, LATER), lead(2, 101, LATER + 2 * minute), lead(3, 102, LATER), realtime=False
    )
    stocked.sql("UPDATE webhook_events SET status = 'set_aside'")
    inbox = stocked.inbox()
    assert replay(inbox, statuses=[EventStatus.UNMATCHED]) == ReplayReport(0, 0, 0)
    assert replay(inbox, since=LATER + minute) == ReplayReport(1, 1, 0)
    assert stocked.number("positive_replies_mtd") == MONTH_SO_FAR + 1
    assert replay(inbox, workspaces=["quay"]) == ReplayReport(1, 1, 0)
    assert stocked.events("status") == ["set_aside", "applied", "applied"]


def test_a_replay_that_fails_for_one_client_goes_on_with_the_others(stocked: Clients) -> None:
    fail_rows_above(stocked.engine, "harbor", leads=3)
    stocked.ingest(lead(1, 101, LATER), lead(1, 102, LATER), realtime=False)
    assert replay(stocked.inbox()) == ReplayReport(events=2, applied=1, left=1)
    assert stocked.number("positive_replies_mtd", "quay") == MONTH_SO_FAR + 1


def test_an_event_without_its_body_is_left_as_it_is(stocked: Clients) -> None:
    stocked.ingest(lead(1, arrived_at=LATER), realtime=False)
    spoil(stocked, "invalid")
    stocked.sql("UPDATE webhook_events SET body = NULL")
    assert replay(stocked.inbox()) == ReplayReport(events=1, applied=0, left=1)
    assert stocked.events("status", "reason") == [("invalid", "Not understood.")]
