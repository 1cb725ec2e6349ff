"""The nightly sync of 26 clients × 8 days, through Dagster's daemon, against a slow Email Bison."""

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date

import httpx
import psutil
from rich.table import Table

from kpi_pipeline.business_days import days_between, nightly_dates
from kpi_pipeline.cli.dagster_page import RunStatus
from kpi_pipeline.cli.playground import Playground, playground
from kpi_pipeline.partitions import rectangle_tags
from kpi_pipeline.settings import load_settings
from kpi_pipeline.sync.rectangle import Step
from kpi_pipeline_tests.end_to_end.schedules import stop_schedules

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
    with _installation() as play:
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
    dates = days_between(*nightly_dates(play.deployment.today()))
    with _peak_memory() as peak:
        started = time.monotonic()
        tags = rectangle_tags(play.grid, dates)
        run_id = play.page.launch([step.value for step in Step], tags)
        while (status := play.page.status(run_id)) is RunStatus.UNDER_WAY:
            time.sleep(0.1)
        seconds = time.monotonic() - started
    calls = httpx.get(f"{play.sandbox}/sandbox/calls").json()["total"]
    return Figures(seconds, calls, peak.megabytes, status)


@contextmanager
def _installation() -> Iterator[Playground]:
    """A fresh installation, in a folder of its own: registry refreshed, schedules at rest."""
    with tempfile.TemporaryDirectory(prefix="kpi-bench-") as folder:
        os.environ |= {"KPI_ENV_FILE": "", "KPI_STATE_DIR": folder}
        settings = load_settings().model_copy(update={"web_port": 0})
        with playground(settings, _SANDBOX, date(2020, 1, 1)) as play:
            stop_schedules(play.page)
            registry = play.page.launch(["client_registry"], {})
            while play.page.status(registry) is RunStatus.UNDER_WAY:
                time.sleep(0.2)
            yield play


class _Peak:
    """The largest memory (RSS) that a run's process was seen to take."""

    def __init__(self) -> None:
        self.megabytes = 0.0

    def look(self) -> None:
        """Look once at the processes that execute runs: Dagster's code server spawns them."""
        for process in psutil.Process().children(recursive=True):
            try:
                if any("spawn_main" in part for part in process.cmdline()):
                    self.megabytes = max(self.megabytes, process.memory_info().rss / 1e6)
            except psutil.Error:
                continue


@contextmanager
def _peak_memory() -> Iterator[_Peak]:
    peak, over = _Peak(), threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            peak.look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()
