"""Ingested events are in the numbers at once; the expected numbers are plain arithmetic.

The facts of Harbor hold 3 leads a day since the first of February, as of 20:00 UTC; the
events arrive at 20:15.
"""

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from kpi_pipeline.domain.events.event import EventStatus
from kpi_pipeline_tests.db.stocked import AS_OF, TODAY, imported, record
from kpi_pipeline_tests.domain.bodies import content, email_sent, lead, parsed
from kpi_pipeline_tests.inbox.support import LATER, Clients

DAY = timedelta(days=1)
RECEIVED, APPLIED = EventStatus.RECEIVED, EventStatus.APPLIED
MONTH_SO_FAR = 3 * 18


def test_a_lead_is_in_the_row_of_today_as_soon_as_it_is_ingested(clients: Clients) -> None:
    clients.stock(shown=[TODAY])
    (receipt,) = clients.ingest(lead(1, arrived_at=LATER))
    assert (receipt.status, receipt.is_new, receipt.reason) == (APPLIED, True, None)
    row = clients.rows()["harbor", TODAY]
    assert row["positive_replies_today"] == 3 + 1
    assert row["positive_replies_mtd"] == MONTH_SO_FAR + 1
    assert row["positive_replies_last_7_days"] == 3 * 7 + 1
    assert row["positive_replies_last_month"] == 3 * 28
    assert (row["source"], row["as_of"]) == ("webhook", AS_OF)
    assert row["mtd_leads_progress"] == Decimal("91.67")  # 55 of 60


def test_an_event_counts_once_however_often_it_is_delivered(clients: Clients) -> None:
    clients.stock()
    first, second = clients.ingest(lead(1, arrived_at=LATER), lead(1, arrived_at=LATER + DAY / 24))
    (third,) = clients.ingest(lead(1, arrived_at=LATER + DAY / 12))
    assert first.event_id == second.event_id == third.event_id
    assert [it.is_new for it in (first, second, third)] == [True, False, False]
    assert clients.number("positive_replies_mtd") == MONTH_SO_FAR + 1
    assert clients.events("deliveries", "arrived_at", "last_delivered_at") == [
        (3, LATER, LATER + DAY / 12)
    ]


@pytest.mark.parametrize("at_once", [1, 3, 40])
def test_shuffled_and_doubled_events_give_the_same_numbers_in_batches_of_any_size(
    clients: Clients, at_once: int
) -> None:
    for workspace in ("harbor", "quay"):
        clients.stock(workspace)
    events = [lead(number, 101 + number % 2, LATER) for number in range(1, 21)] * 2
    random.Random(at_once).shuffle(events)
    for place in range(0, len(events), at_once):
        clients.ingest(*events[place : place + at_once])
    assert set(clients.events("status", "deliveries")) == {("applied", 2)}
    for workspace in ("harbor", "quay"):
        assert clients.number("positive_replies_today", workspace) == 3 + 10
        assert clients.number("positive_replies_mtd", workspace) == MONTH_SO_FAR + 10


def test_what_arrived_before_the_facts_were_asked_for_is_held_by_them(clients: Clients) -> None:
    clients.stock()
    second = timedelta(seconds=1)
    clients.ingest(lead(1, arrived_at=AS_OF - second), lead(2, arrived_at=AS_OF))
    assert clients.number("positive_replies_today") == 3
    clients.ingest(lead(3, arrived_at=AS_OF + second))
    assert clients.number("positive_replies_today") == 4
    assert set(clients.events("status")) == {"applied"}


def test_the_nightly_job_and_a_webhook_never_undo_each_other(clients: Clients) -> None:
    clients.stock(shown=[TODAY])
    clients.ingest(lead(1, arrived_at=LATER), lead(2, arrived_at=LATER + timedelta(minutes=2)))
    assert clients.number("positive_replies_mtd") == MONTH_SO_FAR + 2
    # The facts that are fetched between the two hold the first, and a third without a webhook.
    again = LATER + timedelta(minutes=1)
    clients.stock(first=TODAY, as_of=again, interested=5, shown=[TODAY])
    assert clients.number("positive_replies_mtd") == 3 * 17 + 5 + 1
    clients.ingest(lead(3, arrived_at=LATER + timedelta(minutes=3)))
    assert clients.number("positive_replies_mtd") == 3 * 17 + 5 + 2


def test_today_has_a_row_with_the_month_so_far_though_nothing_was_fetched_for_it(
    clients: Clients,
) -> None:
    clients.stock(last=TODAY - DAY)
    clients.ingest(lead(1, arrived_at=LATER), lead(2, arrived_at=LATER))
    row = clients.rows()["harbor", TODAY]
    assert (row["positive_replies_today"], row["emails_sent_today"]) == (2, 0)
    assert row["positive_replies_mtd"] == 3 * 17 + 2
    assert row["emails_sent_mtd"] == 100 * 17


def test_without_any_facts_a_day_alone_has_a_number_and_a_month_has_none(clients: Clients) -> None:
    clients.ingest(lead(1, arrived_at=LATER))
    row = clients.rows()["harbor", TODAY]
    assert (row["positive_replies_today"], row["positive_replies_mtd"]) == (1, None)


def test_a_late_event_changes_its_own_row_and_each_later_one_up_to_today(clients: Clients) -> None:
    days = [TODAY - number * DAY for number in range(5)]
    sent_at = AS_OF - 2 * DAY
    clients.stock(first=days[2], last=days[2], as_of=sent_at - DAY / 24)
    clients.stock(shown=days, without=[days[2]])
    before = clients.rows()
    clients.ingest(email_sent(1, sent_at, LATER))
    after = clients.rows()
    added = {day: after["harbor", day]["emails_sent_mtd"] - 100 * day.day for day in days}
    assert added == dict(zip(days, [1, 1, 1, 0, 0], strict=True))
    on_the_day = {day: after["harbor", day]["emails_sent_today"] for day in days}
    assert on_the_day == dict(zip(days, [100, 100, 101, 100, 100], strict=True))
    for day in days[3:]:
        assert after["harbor", day] == before["harbor", day]


def test_an_event_of_last_month_changes_last_month_and_not_this_one(clients: Clients) -> None:
    tenth = date(2026, 2, 10)
    clients.stock(shown=[date(2026, 2, 28), TODAY], without=[tenth])
    clients.stock(first=tenth, last=tenth, as_of=datetime(2026, 2, 10, 14, 0, tzinfo=UTC))
    marked = {"type": "lead_interested", "created_at": "2026-02-10T15:00:00Z"}
    data = {"lead": {"id": 1}, "campaign": {"id": 3}, "campaign_event": marked}
    clients.ingest(parsed(content(data=data), LATER))
    assert clients.number("positive_replies_mtd", day=date(2026, 2, 28)) == 3 * 28 + 1
    assert clients.number("positive_replies_last_month") == 3 * 28 + 1
    assert clients.number("positive_replies_mtd") == MONTH_SO_FAR


def test_a_lead_counts_in_the_month_in_which_it_turned_interested_whatever_follows(
    clients: Clients,
) -> None:
    clients.at = datetime(2026, 2, 28, 21, 0, tzinfo=UTC)
    clients.stock(last=date(2026, 2, 28), as_of=clients.at - DAY / 24)
    clients.ingest(lead(1, arrived_at=clients.at))
    clients.stock(first=date(2026, 3, 1))
    clients.at = LATER
    # The same lead replies again in March, with another event.
    clients.ingest(lead(1, arrived_at=LATER))
    assert clients.events("business_date") == [date(2026, 2, 28)]
    clients.ingest(lead(2, arrived_at=LATER))
    assert clients.number("positive_replies_last_month") == 3 * 28 + 1
    assert clients.number("positive_replies_mtd") == MONTH_SO_FAR + 1


def test_a_late_event_reaches_a_row_of_today_that_has_events_alone(clients: Clients) -> None:
    clients.stock(last=TODAY - DAY, as_of=AS_OF - 2 * DAY, shown=[TODAY - DAY])
    clients.ingest(lead(1, arrived_at=LATER))
    clients.ingest(email_sent(1, AS_OF - DAY, LATER))
    assert clients.number("emails_sent_mtd", day=TODAY - DAY) == 100 * 17 + 1
    assert clients.number("emails_sent_mtd") == 100 * 17 + 1
    assert set(clients.events("status")) == {"applied"}


def test_an_event_that_changes_no_row_settles_all_the_same(clients: Clients) -> None:
    clients.stock(first=TODAY)
    (receipt,) = clients.ingest(email_sent(1, AS_OF - 90 * DAY, LATER))
    assert (receipt.status, clients.rows()) == (APPLIED, {})


def test_other_clients_keep_their_rows(clients: Clients) -> None:
    for workspace in ("harbor", "quay"):
        clients.stock(workspace, shown=[TODAY])
    before = clients.rows()["quay", TODAY]
    clients.ingest(lead(1, arrived_at=LATER))
    assert clients.rows()["quay", TODAY] == before


def test_with_realtime_off_events_are_stored_and_left_to_the_sensor(clients: Clients) -> None:
    clients.stock(shown=[TODAY])
    (receipt,) = clients.ingest(lead(1, arrived_at=LATER), realtime=False)
    assert receipt.status is RECEIVED
    assert clients.number("positive_replies_mtd") == MONTH_SO_FAR
    assert clients.affected(["harbor"]) == {"harbor": [TODAY]}


def test_a_batch_may_be_empty(clients: Clients) -> None:
    assert clients.ingest() == []


def test_an_ignored_and_an_invalid_event_are_stored_and_count_for_nothing(clients: Clients) -> None:
    clients.stock(shown=[TODAY])
    before = clients.rows()
    opened = {"event": {"type": "email_opened", "workspace_id": 101}, "data": {}}
    events = [parsed(opened, LATER), parsed(b"no event", LATER)]
    assert [it.status for it in clients.ingest(*events)] == ["ignored", "invalid"]
    assert clients.events("body") == [event.body for event in events]
    assert clients.rows() == before


def test_the_workspace_of_another_instance_with_the_same_id_is_another_client(
    clients: Clients,
) -> None:
    imported(clients.engine, clients.vault, record(101, "Emea Harbor", instance="emea"))
    for workspace in ("harbor", "emea-harbor"):
        clients.stock(workspace)
    event = lead(1, arrived_at=LATER)
    twin = parsed(event.body, LATER, instance="emea")
    clients.ingest(event, lead(2, arrived_at=LATER), twin)
    assert clients.number("positive_replies_today") == 3 + 2
    assert clients.number("positive_replies_today", "emea-harbor") == 3 + 1


def test_an_event_joins_its_client_by_ids_and_never_by_a_name(clients: Clients) -> None:
    imported(clients.engine, clients.vault, record(101, "Seaside"), record(102, "Harbor"))
    clients.stock("harbor")
    clients.ingest(lead(1, 101, LATER, workspace_name="Harbor "))
    assert list(clients.rows()) == [("harbor", TODAY)]
    assert clients.number("workspace_name") == "Seaside"
    assert clients.events("workspace") == ["harbor"]


def test_an_event_that_names_another_instance_is_not_counted_and_says_so(
    clients: Clients,
) -> None:
    clients.stock(shown=[TODAY])
    before = clients.rows()
    astray = lead(1, arrived_at=LATER, instance_url="https://EMEA.example/api")
    (receipt,) = clients.ingest(astray)
    assert receipt.status is EventStatus.INVALID
    assert "is an event of instance emea" in str(receipt.reason)
    assert clients.rows() == before
    # The same counts where it belongs, or names no instance that is known.
    for url in ("https://mail.example", "https://elsewhere.example", "http://[broken"):
        clients.ingest(lead(1, arrived_at=LATER, instance_url=url))
    assert clients.number("positive_replies_mtd") == MONTH_SO_FAR + 1
