"""Email Bison's test events are told from the events of a real workspace with the id 1."""

from datetime import timedelta
from typing import Any

import pytest

from kpi_pipeline.domain.events.event import Event, EventSource, EventStatus
from kpi_pipeline.domain.events.kinds import COUNTED, NOT_COUNTED, key_of_test
from kpi_pipeline.domain.events.parse import parse_event
from kpi_pipeline_tests.domain.bodies import ARRIVED, CHICAGO, content, parsed
from kpi_pipeline_tests.domain.test_parse import body

YEARS_AGO = "2024-08-02T06:08:38.000000Z"
LAST_MONTH = (ARRIVED - timedelta(days=30)).isoformat()
TEN_DAYS_AGO = (ARRIVED - timedelta(days=10)).isoformat()
RECORDED_AS = {
    "email_sent": "sent",
    "lead_replied": "replied",
    "lead_interested": "interested",
    "email_bounced": "bounce",
    "lead_unsubscribed": "unsubscribed",
}


def about(time: str | None, *, first_id: int = 1, recorded_as: str = "sent") -> dict[str, Any]:
    """The members of an event whose times are all `time`, with ids from `first_id` on."""
    names = ["lead", "campaign", "sender_email", "scheduled_email"]
    data: dict[str, Any] = {name: {"id": first_id + n} for n, name in enumerate(names)}
    data["reply"] = {"id": 725}
    data["campaign_event"] = {"id": 6, "type": recorded_as}
    if time is not None:
        data["reply"]["date_received"] = time
        data["scheduled_email"]["sent_at"] = time
        data["campaign_event"]["created_at"] = time
    return data


def from_a_file(sent: bytes) -> Event:
    return parse_event(
        sent, instance="main", source=EventSource.FILE, arrived_at=ARRIVED, tz=CHICAGO
    )


@pytest.mark.parametrize("event_type", [*COUNTED, *NOT_COUNTED, "lead_teleported"])
def test_a_sample_is_a_test_event_and_counts_nothing(event_type: str) -> None:
    data = about(YEARS_AGO, recorded_as=RECORDED_AS.get(event_type, "opened"))
    for named in (event_type, event_type.upper()):
        event = parsed(content(named, data, 1))
        assert (event.status, event.metric, event.happened_at) == (EventStatus.TEST, None, None)
        assert str(event.reason).startswith("A test event: ")
        assert event.idempotency_key.startswith("main test sha256=")


@pytest.mark.parametrize("event_type", COUNTED)
def test_its_own_time_makes_it_a_sample_whatever_its_ids(event_type: str) -> None:
    data = about(YEARS_AGO, first_id=632_586, recorded_as=RECORDED_AS[event_type])
    assert parsed(content(event_type, data, 1)).status is EventStatus.TEST


def test_nothing_but_times_of_years_ago_makes_it_a_sample() -> None:
    """Under `lead_interested`, the record may be that of the reply."""
    data = about(YEARS_AGO, first_id=632_586, recorded_as="replied")
    assert parsed(content("lead_interested", data, 1)).status is EventStatus.TEST


@pytest.mark.parametrize("event_type", COUNTED)
def test_small_ids_without_a_recent_time_make_it_a_sample(event_type: str) -> None:
    assert parsed(content(event_type, about(None), 1)).status is EventStatus.TEST
    # It may lack what would identify it.
    assert parsed(content(event_type, {"lead": {"id": 1}}, "1")).status is EventStatus.TEST


@pytest.mark.parametrize("event_type", COUNTED)
@pytest.mark.parametrize("first_id", [1, 632_586])
@pytest.mark.parametrize("time", [ARRIVED.isoformat(), TEN_DAYS_AGO])
def test_an_event_of_a_real_workspace_1_counts_by_its_time(
    event_type: str, first_id: int, time: str
) -> None:
    """An instance that is a day old has small ids, too."""
    event = parsed(content(event_type, about(time, first_id=first_id), 1))
    assert (event.status, event.metric) == (EventStatus.RECEIVED, COUNTED[event_type].metric)


def test_a_reply_of_last_month_that_is_marked_as_interested_now_is_real() -> None:
    data = about(LAST_MONTH, first_id=632_586, recorded_as="replied")
    event = parsed(content("lead_interested", data, 1))
    assert (event.status, event.happened_at) == (EventStatus.RECEIVED, None)


def test_a_row_of_the_feed_is_recent_by_its_recorded_time() -> None:
    payload = content("lead_interested", about(YEARS_AGO, recorded_as="interested"), 1)
    row = {"id": 9, "uuid": "0b0e8a3e", "payload": payload, "created_at": ARRIVED.isoformat()}
    assert parsed(row).status is EventStatus.RECEIVED


def test_a_file_may_hold_old_events_of_a_real_workspace_1() -> None:
    real = body("email_sent", about(LAST_MONTH, first_id=632_586), workspace_id=1)
    assert from_a_file(real).status is EventStatus.RECEIVED
    assert from_a_file(body("email_sent", about(YEARS_AGO), workspace_id=1)).status == "test"


@pytest.mark.parametrize("workspace_id", [2, 101, 11])
def test_no_other_workspace_sends_samples(workspace_id: int) -> None:
    data = about(YEARS_AGO, recorded_as="interested")
    assert parsed(content("lead_interested", data, workspace_id)).status is EventStatus.RECEIVED


def test_the_name_in_the_url_makes_any_event_a_test_event_and_is_its_key() -> None:
    def named(name: str, sent: bytes) -> Event:
        source = EventSource.WEBHOOK
        return parse_event(
            sent, instance="main", source=source, arrived_at=ARRIVED, tz=CHICAGO, test_name=name
        )

    real = body("lead_replied", about(ARRIVED.isoformat()))
    event = named("Try-7_a", real)
    assert (event.status, event.metric) == (EventStatus.TEST, None)
    assert event.idempotency_key == key_of_test("main", "Try-7_a") != parsed(real).idempotency_key
    for odd in ("", "a b", "x" * 65, "\x00", "\ud800"):
        other = named(odd, real)
        assert other.status is EventStatus.TEST
        assert other.idempotency_key.startswith("main test sha256=")
    assert named("seven", b"{").status is EventStatus.INVALID
