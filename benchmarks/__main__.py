"""Runs the benchmarks that are named, or all of them, and prints a table for each."""

import os
import sys
from collections.abc import Callable
from unittest.mock import patch

from rich.console import Console, Group, RenderableType

from benchmarks.backfills import (
    a_run_for_each_partition,
    click_to_green,
    growth,
    year_of_every_client,
)
from benchmarks.checks import round_of_checks
from benchmarks.daily_sync import daily_sync
from benchmarks.dashboard import metrics, overview
from benchmarks.dashboard_live import dashboard_live
from benchmarks.event_feed import sync_beside_feed
from benchmarks.thousand_clients import night_of_a_thousand_clients
from benchmarks.webhooks import webhooks

_ALL: dict[str, Callable[[], RenderableType]] = {
    "daily": daily_sync,
    "year": year_of_every_client,
    "growth": growth,
    "click": click_to_green,
    "naive": a_run_for_each_partition,
    "thousand": night_of_a_thousand_clients,
    "webhooks": webhooks,
    "checks": round_of_checks,
    "feed": sync_beside_feed,
    "dashboard": lambda: Group(overview(), metrics(), dashboard_live()),
}


def main() -> None:
    """Print the tables."""
    console = Console(width=140)
    for name in sys.argv[1:] or _ALL:
        if name not in _ALL:
            raise SystemExit(f"There is no benchmark {name!r}; known: {', '.join(_ALL)}.")
        # Each sets variables for the processes that it starts.
        with patch.dict(os.environ):
            console.print(_ALL[name]())


if __name__ == "__main__":
    main()
