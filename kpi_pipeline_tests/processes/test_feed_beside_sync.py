"""A nightly sync that meets a poll of the event feed takes no more than a tenth longer."""

import threading
import time
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.event_feed import FeedState, store_feed_states
from kpi_pipeline.domain.calendar import days_between, nightly_dates
from kpi_pipeline.sync.feed import FeedReport, poll_feed
from kpi_pipeline.sync.feed_due import FEED_TYPES, LEADS
from kpi_pipeline_tests.agency import Agency, open_agency
from kpi_pipeline_tests.bison_sandbox.running import TODAY, Stage, bison_on, options
from kpi_pipeline_tests.conftest import instance_of

pytestmark = [pytest.mark.alone, pytest.mark.long]
RATE, LAUNCH_SECONDS = 5, 1.0


def seconds_of_sync(agency: Agency) -> float:
    started = time.monotonic()
    agency.synced(days_between(*nightly_dates(TODAY)))
    return time.monotonic() - started


def poll_of_every_five_minutes(agency: Agency) -> None:
    """Let the feed of each client be read five minutes ago, and its other types an hour ago."""
    agency.sql("DELETE FROM event_feed")
    clients = [(it, kind) for it in agency.workspaces for kind in FEED_TYPES]
    now = agency.app.now()
    with agency.app.engine.begin() as connection:
        for workspace, kind in clients:
            at = now - timedelta(minutes=5 if kind == LEADS else 60)
            store_feed_states(connection, [FeedState(workspace, kind, at, at, at)])


def test_a_nightly_sync_that_meets_a_poll_takes_no_more_than_a_tenth_longer(
    app: AppContext, stage: Stage
) -> None:
    # Each call takes a third of a second, as on a real instance.
    with bison_on(stage, options(calls_per_second=RATE, latency=0.3)) as bison:
        changed = {"bison_instances": (instance_of(bison),), "bison_calls_per_second": float(RATE)}
        settings = app.settings.model_copy(update=changed)
        agency = open_agency(replace(app, settings=settings), bison)
        # The first one verifies the API keys, too.
        seconds_of_sync(agency)
        alone = min(seconds_of_sync(agency) for _ in range(2))
        beside = []
        for _ in range(2):
            poll_of_every_five_minutes(agency)
            agency.forget_calls()
            syncing = threading.Event()
            reports: list[FeedReport] = []
            poll = threading.Thread(
                target=lambda done=reports, over=syncing: done.append(
                    poll_feed(agency.app, syncing=over.is_set)
                )
            )
            poll.start()
            _until_calls(agency, 4)
            syncing.set()
            # A run takes two seconds and more from its request to its first call.
            time.sleep(LAUNCH_SECONDS)
            beside.append(seconds_of_sync(agency))
            poll.join()
            assert reports[0].clients, "the poll was under way"
            assert reports[0].left, "and gave way"
            assert _most_calls_in_a_second(agency) <= RATE

    assert min(beside) <= 1.1 * alone, (alone, beside)


def _until_calls(agency: Agency, number: int) -> None:
    deadline = time.monotonic() + 30
    while len(agency.bison.calls()) < number:
        assert time.monotonic() < deadline, "the poll makes no calls"
        time.sleep(0.02)


def _most_calls_in_a_second(agency: Agency) -> int:
    times = [datetime.fromisoformat(it["at"]) for it in agency.bison.calls()]
    second = timedelta(seconds=1)
    return max(sum(it <= other < it + second for other in times) for it in times)
