"""The nightly sync of 26 clients × 8 days, through Dagster's daemon, against a slow Email Bison."""

import time
from dataclasses import dataclass

import httpx
from rich.table import Table

from benchmarks.installation import installation, peak_memory, run_ended
from kpi_pipeline.domain.calendar import days_between, nightly_dates
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.services.dagster_page import RunStatus
from kpi_pipeline.services.playground import Playground
from kpi_pipeline.sync.scope import KpiAsset

_SANDBOX = {"clients": 26, "calls-per-second": 9.5, "latency": 0.25}
_ROUNDS = 3


@dataclass(frozen=True)
class Figures:
    """One sync: from request to end, calls as the sandbox counts them, the run's peak memory."""

    seconds: float
    calls: int
    megabytes: float
    status: RunStatus


def daily_sync() -> Table:
    """Measure the sync a few times on one installation; the registry was refreshed before."""
    with installation(_SANDBOX) as play:
        rounds = [_one_sync(play) for _ in range(_ROUNDS)]
    table = Table(
        title="Daily sync of 26 clients × 8 days × 3 assets; the sandbox lets through "
        f"{_SANDBOX['calls-per-second']} calls/s, and each takes {_SANDBOX['latency']} s besides",
        title_justify="left",
    )
    headings = ("Round", "Request to end\n≤ 18 s", "API calls\n≤ 100", "Run's peak\n≤ 400 MB")
    for heading in headings:
        table.add_column(heading, justify="right")
    table.add_column("Status")
    for number, figures in enumerate(rounds, 1):
        table.add_row(
            str(number),
            f"{figures.seconds:.1f} s",
            str(figures.calls),
            f"{figures.megabytes:.0f} MB",
            figures.status.value,
        )
    return table


def _one_sync(play: Playground) -> Figures:
    httpx.delete(f"{play.sandbox}/sandbox/calls").raise_for_status()
    dates = days_between(*nightly_dates(play.app.today()))
    with peak_memory() as peak:
        started = time.monotonic()
        tags = block_tags(play.grid, dates)
        run_id = play.page.launch([step.value for step in KpiAsset], tags)
        status = run_ended(play, run_id)
        seconds = time.monotonic() - started
    calls = httpx.get(f"{play.sandbox}/sandbox/calls").json()["total"]
    return Figures(seconds, calls, peak.megabytes, status)
