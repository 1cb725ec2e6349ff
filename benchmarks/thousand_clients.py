"""A night of 1,000 clients, in runs as the schedule cuts them; then the grid in a browser."""

import time
from datetime import timedelta

from rich.table import Table
from sqlalchemy import text

from benchmarks.installation import installation, peak_memory, run_ended
from kpi_pipeline.domain.calendar import days_between, nightly_dates
from kpi_pipeline.orchestration.partitions import block_tags, contiguous_groups
from kpi_pipeline.services.dagster_page import RunStatus
from kpi_pipeline.services.playground import Playground
from kpi_pipeline.sync.scope import KpiAsset
from kpi_pipeline_tests.end_to_end.chromium import find_chromium, open_page, show_grid

_SANDBOX = {"clients": 1_000, "calls-per-second": 0, "latency": 0}
# Dagster advises at most 100,000 partitions for an asset, and README to set KPI_FIRST_DATE.
_GRID_DAYS = 90


def night_of_a_thousand_clients() -> Table:
    """One nightly sync, then the partition grid of client_metrics."""
    with installation(_SANDBOX, grid_days=_GRID_DAYS) as play:
        with peak_memory() as peak:
            started = time.monotonic()
            statuses = _one_night(play)
            seconds = time.monotonic() - started
        with play.app.engine.connect() as connection:
            rows = connection.scalar(text("SELECT count(*) FROM client_metrics"))
        opened = _seconds_to_open_the_grid(play)
    table = Table(
        title=f"A night of 1,000 clients; a grid of {_GRID_DAYS} days; Email Bison without limits",
        title_justify="left",
    )
    figures = {
        "Runs": f"{len(statuses)}, {statuses.count(RunStatus.SUCCESS)} of them well",
        "Rows": f"{rows:,}",
        "Request to end\n≤ 150 s": f"{seconds:.0f} s",
        "A run's peak\n≤ 1 GB": f"{peak.megabytes:.0f} MB",
        "Page's and daemon's\n≤ 1 GB": f"{peak.servers_megabytes:.0f} MB",
        "Grid open in\n< 10 s": "no browser" if opened is None else f"{opened:.1f} s",
    }
    for heading in figures:
        table.add_column(heading, justify="right")
    table.add_row(*figures.values())
    return table


def _one_night(play: Playground) -> list[RunStatus]:
    dates = days_between(*nightly_dates(play.app.today()))
    groups = contiguous_groups(play.grid, play.grid, play.app.settings.workspaces_per_run)
    assets = [step.value for step in KpiAsset]
    runs = [play.page.launch(assets, block_tags(group, dates)) for group in groups]
    return [run_ended(play, run) for run in runs]


def _seconds_to_open_the_grid(play: Playground) -> float | None:
    """From the request of the page to the dates in its grid; a browser that is open already."""
    if (executable := find_chromium()) is None:
        return None
    today = play.app.today()
    with open_page(executable) as page:
        page.goto("about:blank")
        started = time.monotonic()
        show_grid(page, play.page.url, today - timedelta(days=7), today)
        return time.monotonic() - started
