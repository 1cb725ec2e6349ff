from datetime import timedelta

import pytest

from kpi_pipeline.domain.events.event import Event, EventStatus
from kpi_pipeline.inbox import retention
from kpi_pipeline.inbox.replay import replay
from kpi_pipeline.inbox.retention import purge
from kpi_pipeline_tests.db.stocked import TODAY
from kpi_pipeline_tests.domain.bodies import content, parsed
from kpi_pipeline_tests.inbox.support import LATER, Clients

DAYS = timedelta(days=1)
PERSONAL = ["Avery", "Quill", "avery@lead.example", "Please call me", "Lead Company Ltd"]


def personal(number: int, *, event_type: str = "LEAD_INTERESTED", workspace_id: int = 101) -> Event:
    """An event with the data of a person."""
    first, last, email, words, company = PERSONAL
    person = {"id": number, "first_name": first, "last_name": last, "email": email}
    data = {
        "lead": {**person, "company": company},
        "campaign": {"id": 3, "name": company},
        "reply": {"id": number, "text_body": words, "from_name": first},
    }
    body = content(event_type, data, workspace_id, name=f"{first} {last}")
    return parsed(body, LATER)


@pytest.fixture
def stocked(clients: Clients) -> Clients:
    clients.stock(shown=[TODAY])
    return clients


def test_after_their_time_bodies_are_gone_and_numbers_and_keys_stay(stocked: Clients) -> None:
    stocked.ingest(personal(1), personal(2), personal(1))
    columns = "id", "idempotency_key", "status", "metric", "business_date", "deliveries"
    before, rows = stocked.events(*columns), stocked.rows()
    stocked.at = LATER + 30 * DAYS
    assert purge(stocked.inbox(), older_than_days=30) == 0, "they are just 30 days old"
    assert None not in stocked.events("body")
    stocked.at += timedelta(seconds=1)
    assert purge(stocked.inbox(), older_than_days=30) == 2
    assert purge(stocked.inbox(), older_than_days=30) == 0
    assert stocked.events("body") == [None, None]
    assert (stocked.events(*columns), stocked.rows()) == (before, rows)


def test_nothing_of_a_person_is_left_of_an_event_whatever_became_of_it(stocked: Clients) -> None:
    stocked.ingest(
        personal(1),
        personal(2, event_type="email_opened"),
        personal(3, workspace_id=109),
        personal(4, event_type="email_sent"),
        parsed(b'{"hush": "%s"' % PERSONAL[2].encode(), LATER),
    )
    assert {*stocked.events("status")} == {"applied", "ignored", "unmatched", "invalid"}
    stocked.at = LATER + DAYS
    assert purge(stocked.inbox(), older_than_days=0) == 5
    rows = stocked.sql("SELECT to_jsonb(e)::text FROM webhook_events e")
    stored = " ".join(row[0] for row in rows)
    assert [it for it in PERSONAL if it in stored] == []


def test_rows_recomputed_after_a_purge_are_the_same(stocked: Clients) -> None:
    stocked.ingest(personal(1), personal(2))
    before = stocked.rows()["harbor", TODAY]
    stocked.at = LATER + timedelta(hours=1)
    purge(stocked.inbox(), older_than_days=0)
    assert replay(stocked.inbox(), statuses=list(EventStatus)).applied == 2
    after = stocked.rows()["harbor", TODAY]
    assert after["updated_at"] > before["updated_at"]
    assert {**after, "updated_at": None} == {**before, "updated_at": None}
    # Delivered once more, it is known by its key.
    stocked.ingest(personal(1))
    assert stocked.number("positive_replies_mtd") == 3 * 18 + 2


def test_more_bodies_than_are_dropped_at_once_are_all_dropped(
    stocked: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_BATCH", 2)
    stocked.ingest(*(personal(number) for number in range(1, 6)))
    stocked.at = LATER + DAYS
    assert purge(stocked.inbox(), older_than_days=0) == 5
