"""Polls of the event feed of the sandbox: what webhooks dropped is in the rows all the same."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest

from kpi_pipeline.checks.outcome import Outcome
from kpi_pipeline.checks.webhook_events import webhooks_delivered
from kpi_pipeline.db.tables import event_feed, webhook_events
from kpi_pipeline.domain.events.event import EventSource
from kpi_pipeline.domain.events.parse import parse_event
from kpi_pipeline.domain.formatting import counted
from kpi_pipeline.errors import KpiError
from kpi_pipeline.inbox.ingest import inbox_of, ingest
from kpi_pipeline.sync.feed import FeedReport, poll_feed, recover
from kpi_pipeline.sync.feed_due import FEED_TYPES, feed_is_due
from kpi_pipeline_tests.agency import Agency
from kpi_pipeline_tests.bison_sandbox.running import TODAY
from kpi_pipeline_tests.conftest import NOW

LEADS, REPLIES = "positive_replies_today", "all_replies_mtd"
FEED = "/api/events"


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def few_synced(agency: Agency) -> Agency:
    """Three clients with a key and one without, synced at NOW; the others are inactive."""
    chosen = [*agency.keyed[:3], agency.keyless[0]]
    agency.sql("UPDATE clients SET active = false WHERE workspace <> ALL(:few)", few=chosen)
    agency.synced([TODAY], chosen)
    agency.forget_calls()
    agency.workspaces = chosen
    return agency


@pytest.fixture
def agency(agency: Agency) -> Agency:
    return few_synced(agency)


def mark(agency: Agency, workspace: str, leads: int = 1) -> list[dict[str, Any]]:
    """Let leads turn interested that no webhook delivers; the bodies."""
    body = {"workspace_id": agency.ids[workspace], "leads": leads, "deliver": False}
    return list(agency.bison.control("POST", "mark-interested", body)["events"])


def deliver(agency: Agency, bodies: Sequence[dict[str, Any]]) -> None:
    """What the gateway does with webhooks that arrive now."""
    inbox = inbox_of(agency.app, realtime=True)
    ingest(
        inbox,
        [
            parse_event(
                json.dumps(body).encode(),
                instance="main",
                source=EventSource.WEBHOOK,
                arrived_at=agency.app.now(),
                tz=inbox.day_zone,
            )
            for body in bodies
        ],
    )


def shown(agency: Agency, column: str = LEADS) -> dict[str, Any]:
    return {slug: agency.rows()[slug, TODAY][column] for slug in agency.workspaces}


def truth(agency: Agency, count: str = "interested") -> dict[str, Any]:
    """What the sandbox counts today, now."""
    period = {"start_date": str(TODAY), "end_date": str(TODAY)}
    return {
        slug: agency.bison.control("GET", "counts", workspace_id=agency.ids[slug], **period)[count]
        for slug in agency.workspaces
    }


def checked(agency: Agency) -> Outcome:
    with agency.app.engine.connect() as connection:
        return webhooks_delivered(
            connection,
            ["main"],
            now=agency.app.now(),
            timezone=agency.app.day_zone,
            until=TODAY - timedelta(days=1),
        )


def feed_calls(agency: Agency) -> dict[str, list[str]]:
    """The types that each client's feed was asked for."""
    return {
        slug: [parse_qs(it["query"])["type"][0] for it in calls if it["path"] == FEED]
        for slug, calls in agency.calls().items()
    }


def test_with_webhooks_off_a_lead_is_in_client_metrics_within_one_poll(agency: Agency) -> None:
    keyed, keyless = agency.workspaces[0], agency.workspaces[-1]
    before = shown(agency)
    agency = agency.moved_to(at(2))
    mark(agency, keyed, 2)
    mark(agency, keyless)
    agency = agency.moved_to(at(4))

    report = poll_feed(agency.app)

    assert report.problems == []
    assert sorted(report.clients) == sorted(agency.workspaces)
    assert shown(agency) == truth(agency)
    assert shown(agency)[keyed] >= before[keyed] + 2
    assert shown(agency)[keyless] >= before[keyless] + 1


def test_doubled_and_dropped_webhooks_leave_the_numbers_right_and_the_dropped_are_named(
    agency: Agency,
) -> None:
    first, second, third, fourth = agency.workspaces
    replies, replied = shown(agency, REPLIES), truth(agency, "replied")
    # Webhooks work, and then the gateway is down for an hour.
    agency = agency.moved_to(at(1))
    deliver(agency, mark(agency, first))
    agency = agency.moved_to(at(10))
    bodies = {slug: mark(agency, slug, 5) for slug in agency.workspaces}
    agency = agency.moved_to(at(60))
    for slug in (first, second):
        # One each is dropped for good; the others are repeated, some of them twice.
        deliver(agency, [*bodies[slug][1:], *bodies[slug][3:]])
    dropped = [*bodies[first][:1], *bodies[second][:1], *bodies[third], *bodies[fourth]]

    poll_feed(agency.app)

    assert shown(agency) == truth(agency)
    assert {it: more - replies[it] for it, more in shown(agency, REPLIES).items()} == {
        it: more - replied[it] for it, more in truth(agency, "replied").items()
    }
    found = checked(agency)
    assert {it["workspace"]: it["problem"] for it in found.problems} == {
        slug: f"{counted(number, 'positive reply')} not delivered: "
        f"{'event' if number == 1 else 'events'} {ids_of(agency, bodies[slug][:number])}"
        for slug, number in ((first, 1), (second, 1), (third, 5), (fourth, 5))
    }
    before = shown(agency)

    agency = agency.moved_to(at(61))
    deliver(agency, dropped)

    assert checked(agency).passed
    assert shown(agency) == before, "a delivery of what the feed has brought counts nothing"


def ids_of(agency: Agency, bodies: Sequence[dict[str, Any]]) -> str:
    leads = [body["data"]["lead"]["id"] for body in bodies]
    rows = agency.table(webhook_events)
    found = [
        row["id"]
        for row in rows
        if any(f" lead.id={it} " in row["idempotency_key"] for it in leads)
    ]
    return ", ".join(map(str, sorted(found)))


def test_leads_are_read_at_each_poll_other_types_once_an_hour_and_sent_emails_never(
    agency: Agency,
) -> None:
    poll_feed(agency.moved_to(at(1)).app)
    first = feed_calls(agency)
    agency.forget_calls()
    poll_feed(agency.moved_to(at(6)).app)
    second = feed_calls(agency)
    agency.forget_calls()
    poll_feed(agency.moved_to(at(7)).app)
    too_soon = feed_calls(agency)
    poll_feed(agency.moved_to(at(61)).app)
    after_an_hour = feed_calls(agency)

    for slug in agency.workspaces:
        assert set(first[slug]) == set(FEED_TYPES)
        assert second[slug] == ["lead_interested"]
        assert set(after_an_hour[slug]) == set(FEED_TYPES)
    assert too_soon == {}


def test_a_poll_reads_on_from_the_last_event_with_an_overlap(agency: Agency) -> None:
    slug = agency.workspaces[0]
    mark(agency.moved_to(at(10)), slug)
    poll_feed(agency.moved_to(at(11)).app)
    states = {(it["workspace"], it["event_type"]): it for it in agency.table(event_feed)}
    assert states[slug, "lead_interested"]["recorded_until"] == at(10)

    # Recorded before the last one, and in the feed only now.
    late = agency.moved_to(at(9))
    mark(late, slug)
    assert poll_feed(agency.moved_to(at(16)).app).new >= 1
    assert shown(agency) == truth(agency.moved_to(at(16)))


def test_where_filters_are_ignored_a_poll_reads_no_further_than_the_last_row_of_any_type(
    agency: Agency,
) -> None:
    agency.bison.variants(event_feed="unfiltered")
    poll_feed(agency.moved_to(at(0)).app)
    first = sum(map(len, feed_calls(agency).values()))
    agency.forget_calls()

    agency = agency.moved_to(at(5))
    mark(agency, agency.workspaces[0])
    report = poll_feed(agency.app)

    assert report.problems == []
    assert shown(agency) == truth(agency)
    assert {row["event_type"] for row in agency.table(webhook_events)} <= set(FEED_TYPES)
    assert sum(map(len, feed_calls(agency).values())) < first / 4


def test_an_instance_without_a_feed_is_noted_once_and_asked_again_after_a_day(
    agency: Agency,
) -> None:
    agency.bison.variants(event_feed="missing")

    first = poll_feed(agency.moved_to(at(1)).app)
    again = poll_feed(agency.moved_to(at(6)).app)

    assert (first.missing, first.problems) == (["main"], [])
    assert again == FeedReport()
    assert not feed_is_due(agency.moved_to(at(20)).app, syncing=lambda: False)
    agency.synced([TODAY], agency.workspaces[:1])
    agency.bison.variants(event_feed="filtered")
    tomorrow = agency.moved_to(at(24 * 60 + 2))
    assert feed_is_due(tomorrow.app, syncing=lambda: False)
    assert len(poll_feed(tomorrow.app).clients) == 4
    with pytest.raises(KpiError, match="`kpi clients list`"):
        recover(agency.with_settings(bison_instances=()).app, at(0))


def test_a_client_whose_key_is_rejected_stops_no_other_and_keeps_the_reason(
    agency: Agency,
) -> None:
    agency = agency.moved_to(at(2))
    slug, other = agency.workspaces[:2]
    mark(agency, other)
    agency.revoke(slug)

    report = poll_feed(agency.app)

    (problem,) = report.problems
    assert problem.startswith(f"{slug}: ")
    assert shown(agency)[other] == truth(agency)[other]
    (state,) = [
        it
        for it in agency.table(event_feed)
        if it["workspace"] == slug and it["event_type"] == "lead_interested"
    ]
    assert state["problem"] == problem
    assert state["read_at"] is None


def test_switched_off_nothing_is_read(agency: Agency) -> None:
    off = agency.moved_to(at(9)).with_settings(event_feed_minutes=None)
    assert not feed_is_due(off.app, syncing=lambda: False)
    assert poll_feed(off.app) == FeedReport()
    assert agency.calls() == {}


def test_recovering_by_hand_reads_from_the_given_time_whatever_was_read_before(
    agency: Agency,
) -> None:
    poll_feed(agency.moved_to(at(1)).app)
    agency.sql("DELETE FROM webhook_events")
    slug, three_days_ago = agency.workspaces[0], at(-60 * 24 * 3)

    read_on = poll_feed(agency.moved_to(at(6)).app)
    report = recover(agency.app, three_days_ago, [slug])

    assert (report.clients, report.problems) == ([slug], [])
    assert report.new > read_on.new
    assert three_days_ago <= min(recorded(agency)) < three_days_ago + timedelta(days=1)
    assert shown(agency) == truth(agency.moved_to(at(6))), "the facts hold the old ones"


def recorded(agency: Agency) -> list[datetime]:
    return [row["recorded_at"] for row in agency.table(webhook_events)]
