"""While the gateway is down, nothing is lost: the feed has it, and the check names the dropped."""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from kpi_pipeline.checks.outcome import Outcome
from kpi_pipeline.checks.webhook_events import webhooks_delivered
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.sync.feed import poll_feed
from kpi_pipeline_tests.agency import Agency, agency_on
from kpi_pipeline_tests.bison_sandbox.running import Bison
from kpi_pipeline_tests.cli.running import wait_until
from kpi_pipeline_tests.gateway.support import gateway_processes

pytestmark = pytest.mark.long

LEADS, DOUBLED, DROPPED = 200, 60, 40


@pytest.fixture
def agency(database: URL, bison: Bison, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agency]:
    """The agency on the tests' own server, synced a moment ago; its feed is polled."""
    monkeypatch.setenv("KPI_EVENT_FEED_MINUTES", "1")
    with agency_on(database, bison, monkeypatch) as agency:
        agency = agency.with_settings(event_feed_minutes=1)
        agency.synced([agency.today])
        yield agency


def mark(agency: Agency, number: int, *, deliver: bool, seconds: int = 3) -> list[str]:
    """Let so many leads turn interested in so many seconds, of all clients in turn; their ids.

    Recorded times are whole seconds: they lie after the sync, and after the first webhook.
    """
    agency.bison.freeze((utc_now() + timedelta(seconds=seconds)).isoformat())
    share = Counter(agency.workspaces[place % len(agency.workspaces)] for place in range(number))
    found = []
    for workspace, leads in share.items():
        body = {"workspace_id": agency.ids[workspace], "leads": leads, "deliver": deliver}
        events = agency.bison.control("POST", "mark-interested", body)["events"]
        found += [str(it["data"]["lead"]["id"]) for it in events]
    return found


def differing(agency: Agency) -> dict[str, tuple[Any, Any]]:
    """The clients whose leads of today are not as many as the sandbox counts."""
    today = str(agency.today)
    rows = agency.rows()
    numbers = {
        slug: (
            rows[slug, agency.today]["positive_replies_today"],
            agency.bison.control(
                "GET", "counts", workspace_id=number, start_date=today, end_date=today
            )["interested"],
        )
        for slug, number in agency.ids.items()
    }
    return {slug: both for slug, both in numbers.items() if both[0] != both[1]}


def checked(agency: Agency) -> Outcome:
    """What the check says in 20 minutes."""
    with agency.app.engine.connect() as connection:
        return webhooks_delivered(
            connection,
            ["main"],
            now=utc_now() + timedelta(minutes=20),
            timezone=agency.app.day_zone,
            until=agency.today - timedelta(days=1),
        )


def named(agency: Agency, found: Outcome) -> set[str]:
    """The leads of the events that the check names."""
    ids = {
        int(number)
        for row in found.problems
        for number in re.findall(r"\d+", str(row["problem"]).partition(": ")[2])
    }
    keys = agency.sql("SELECT idempotency_key FROM webhook_events WHERE id = ANY(:x)", x=list(ids))
    return {re.findall(r"lead\.id=(\d+)", key)[0] for (key,) in keys}


def test_leads_of_an_hour_without_the_gateway_are_right_after_one_poll_and_the_dropped_are_named(
    agency: Agency, tmp_path: Path
) -> None:
    bison = agency.bison
    bison.variants(delivery_seconds=0, delivery_retry_seconds=5)
    with gateway_processes(tmp_path, 1) as [gateway]:
        bison.parent_hook(gateway.url)
        mark(agency, 1, deliver=True, seconds=1)
        bison.delivered()
        gateway.kill()

        once = mark(agency, LEADS - DOUBLED - DROPPED, deliver=True)
        bison.variants(delivery_repeats=1)
        twice = mark(agency, DOUBLED, deliver=True)
        dropped = mark(agency, DROPPED, deliver=False)
        report = poll_feed(agency.app)

        assert report.problems == []
        assert differing(agency) == {}
        assert named(agency, checked(agency)) >= {*once, *twice, *dropped}

        gateway.start()
        gateway.wait_until_ready()
        # The vendor tries again, each time after twice as long.
        wait_until(lambda: bison.pending_deliveries() == 0, "the last delivery", seconds=300)
        deliveries = bison.deliveries()["deliveries"]
    assert sum(it["delivered_at"] is not None for it in deliveries) == 1 + len(once) + 2 * DOUBLED
    assert differing(agency) == {}
    missing = named(agency, checked(agency))
    assert missing >= set(dropped)
    assert not missing & {*once, *twice}
