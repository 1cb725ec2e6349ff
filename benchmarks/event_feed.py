"""A nightly sync alone, and one that meets a poll of the event feed, at five calls a second."""

import os
import statistics
import threading
import time
from datetime import timedelta
from unittest.mock import patch

from rich.table import Table

from benchmarks.installation import installation
from kpi_pipeline.app import AppContext
from kpi_pipeline.db.events.feed import FeedState, store_feed_states
from kpi_pipeline.db.registry.clients import active_clients
from kpi_pipeline.domain.calendar import days_between, nightly_dates
from kpi_pipeline.sync.feed import poll_feed
from kpi_pipeline.sync.feed_due import FEED_TYPES, LEADS
from kpi_pipeline.sync.run import run_sync
from kpi_pipeline.sync.scope import PartitionBlock

_SANDBOX = {"clients": 26, "calls-per-second": 5, "latency": 0.3}
_RATE = 4.75
_ROUNDS = 3
# A run takes two seconds and more from its request to its first call.
_LAUNCH_SECONDS = 1.0


def sync_beside_feed() -> Table:
    """Measure some rounds of both; in the second, the sync begins while the poll runs."""
    # Dagster's own sensor would poll the feed, too, and see no run of a sync to give way to.
    feed_off = patch.dict(os.environ, {"KPI_EVENT_FEED_MINUTES": "off"})
    with feed_off, installation(_SANDBOX) as play:
        settings = play.app.settings.model_copy(
            update={"bison_calls_per_second": _RATE, "event_feed_minutes": 5}
        )
        app = AppContext(settings, play.app.engine, play.app.vault, play.app.now)
        _sync(app)
        alone = [_sync(app) for _ in range(_ROUNDS)]
        beside = [_sync_beside_poll(app) for _ in range(_ROUNDS)]
    table = Table(title="Nightly sync of 26 clients, 5 calls/s", title_justify="left")
    for heading in ("", "Median", "Best", "Worst"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, seconds in (("alone", alone), ("meets a poll, ≤ +10 %", beside)):
        figures = (statistics.median(seconds), min(seconds), max(seconds))
        table.add_row(name, *(f"{it:.1f} s" for it in figures))
    return table


def _sync(app: AppContext) -> float:
    with app.engine.connect() as connection:
        workspaces = [it.workspace for it in active_clients(connection)]
    block = PartitionBlock(workspaces, days_between(*nightly_dates(app.today())))
    started = time.monotonic()
    run_sync(app, block, run_id="a benchmark")
    return time.monotonic() - started


def _sync_beside_poll(app: AppContext) -> float:
    _let_feed_be_due(app)
    syncing = threading.Event()
    poll = threading.Thread(target=lambda: poll_feed(app, syncing=syncing.is_set))
    poll.start()
    time.sleep(_LAUNCH_SECONDS)
    syncing.set()
    time.sleep(_LAUNCH_SECONDS)
    seconds = _sync(app)
    poll.join()
    return seconds


def _let_feed_be_due(app: AppContext) -> None:
    """Let the feed of each client be read five minutes ago, and its other types an hour ago."""
    now = app.now()
    with app.engine.begin() as connection:
        for client in active_clients(connection):
            for kind in FEED_TYPES:
                at = now - timedelta(minutes=5 if kind == LEADS else 60)
                store_feed_states(connection, [FeedState(client.workspace, kind, at, at, at)])
