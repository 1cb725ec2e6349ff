"""Polls of the event feed leave way to syncs, and share the rate of calls with them."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest

from kpi_pipeline.sync.feed import poll_feed
from kpi_pipeline.sync.feed_due import FEED_TYPES, feed_is_due
from kpi_pipeline_tests.agency import Agency
from kpi_pipeline_tests.bison_sandbox.running import TODAY
from kpi_pipeline_tests.sync.test_feed import (
    at,
    deliver,
    feed_calls,
    few_synced,
    mark,
    shown,
    truth,
)


@pytest.fixture
def agency(agency: Agency) -> Agency:
    return few_synced(agency)


def test_while_syncs_are_in_progress_the_feed_waits_and_no_longer_than_ten_minutes(
    agency: Agency,
) -> None:
    poll_feed(agency.moved_to(at(0)).app)
    agency.forget_calls()
    soon, late = agency.moved_to(at(5)).app, agency.moved_to(at(15)).app

    assert feed_is_due(soon, syncing=lambda: False)
    assert not feed_is_due(soon, syncing=lambda: True)
    left = poll_feed(soon, syncing=lambda: True)
    assert (sorted(left.left), left.clients) == (sorted(agency.workspaces), [])
    assert agency.calls() == {}
    assert feed_is_due(late, syncing=lambda: True)
    assert len(poll_feed(late, syncing=lambda: True).clients) == 4


def read_up_to_now(agency: Agency) -> None:
    """Let all 26 clients be active, and the feed of each be read up to now."""
    agency.sql("UPDATE clients SET active = true")
    agency.sql(
        "INSERT INTO event_feed (workspace, event_type, tried_at, read_at, recorded_until) "
        "SELECT workspace, kind, :now, :now, :now "
        "FROM clients, unnest(CAST(:kinds AS text[])) AS k(kind)",
        now=agency.app.now(),
        kinds=list(FEED_TYPES),
    )


def test_a_poll_that_a_sync_overtakes_ends_with_the_calls_that_are_under_way(
    agency: Agency, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kpi_pipeline.sync.feed._ASK_SECONDS", 0)
    read_up_to_now(agency)
    asked = 0

    def syncing() -> bool:
        nonlocal asked
        asked += 1
        return asked > 5

    report = poll_feed(agency.moved_to(at(5)).app, syncing=syncing)

    assert len(report.clients) == 5
    assert len(report.left) == 21
    assert sum(map(len, feed_calls(agency).values())) == 5
    assert len(poll_feed(agency.moved_to(at(6)).app).clients) == 21, "the next poll reads the rest"


@pytest.mark.long
def test_two_syncs_a_poll_and_a_hundred_webhooks_keep_to_the_rate_of_calls(agency: Agency) -> None:
    rate = 5
    agency = agency.with_settings(bison_calls_per_second=float(rate))
    agency.forget_calls()
    bodies = [body for slug in agency.workspaces for body in mark(agency, slug, leads=13)]

    def webhooks() -> None:
        for body in bodies:
            deliver(agency, [body])

    work = [
        lambda: agency.synced([TODAY], agency.workspaces),
        lambda: agency.synced([TODAY], agency.workspaces),
        lambda: poll_feed(agency.app),
        webhooks,
    ]
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(it) for it in work]:
            done.result()

    times = sorted(datetime.fromisoformat(it["at"]) for it in agency.bison.calls())
    assert len(times) > 3 * rate
    second = timedelta(seconds=1)
    assert max(sum(it <= other < it + second for other in times) for it in times) <= rate
    assert shown(agency) == truth(agency)
