"""What benchmarks run on: a fresh installation, with Dagster's page and daemon, and its memory."""

import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import psutil

from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.services.dagster_page import RunStatus
from kpi_pipeline.services.playground import Playground, playground
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.end_to_end.schedules import stop_schedules

_ASK_EVERY_SECONDS = 0.2


@contextmanager
def installation(
    sandbox: Mapping[str, object], *, grid_days: int | None = None
) -> Iterator[Playground]:
    """A fresh installation in a folder of its own: registry refreshed, schedules at rest.

    `sandbox` holds options of `kpi sandbox`, by name. With `grid_days`, the grid begins so many
    days ago.
    """
    with tempfile.TemporaryDirectory(prefix="kpi-bench-") as folder:
        os.environ |= {"KPI_ENV_FILE": "", "KPI_STATE_DIR": folder}
        settings = load_settings().model_copy(update={"web_port": 0})
        if grid_days is not None:
            first = business_date(utc_now(), settings.day_zone) - timedelta(days=grid_days)
            settings = settings.model_copy(update={"first_date": first})
        with playground(settings, sandbox, date(2020, 1, 1)) as play:
            stop_schedules(play.page)
            registry = play.page.launch(["client_registry"], {})
            run_ended(play, registry)
            yield play


def run_ended(play: Playground, run_id: str) -> RunStatus:
    """How the run ended, once it has. Few questions, as the page that answers is measured, too."""
    while (status := play.page.status(run_id)) is RunStatus.UNDER_WAY:
        time.sleep(_ASK_EVERY_SECONDS)
    return status


def cpu_seconds(play: Playground) -> float:
    """CPU seconds of all processes so far, but for the sandbox: Dagster's, and PostgreSQL's."""
    postmaster = next(play.app.settings.state_dir.rglob("postmaster.pid"), None)
    roots = [it for it in psutil.Process().children() if not _is_sandbox(it)]
    if postmaster is not None:
        roots.append(psutil.Process(int(postmaster.read_text().split()[0])))
    total = 0.0
    for root in roots:
        for process in (root, *root.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.Error:
                # It ended just now, and counts among its parent's children.
                continue
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _is_sandbox(process: psutil.Process) -> bool:
    return "sandbox" in process.cmdline()


# The processes that execute runs are forked from this one.
_RUN = "forkserver"
# A look at all processes takes time from those that are measured. A run takes longer than this.
_LOOK_EVERY_SECONDS = 5.0


class Peak:
    """The largest memory (RSS) that a run's process, or a server's, was seen to take."""

    def __init__(self) -> None:
        self.megabytes = 0.0
        self.servers_megabytes = 0.0

    def look(self) -> None:
        """Look once at each process of Dagster's below this one."""
        for process in psutil.Process().children(recursive=True):
            try:
                words = " ".join(process.cmdline())
                megabytes = peak_megabytes(process)
            except (psutil.Error, OSError):
                # It ended just now.
                continue
            if _RUN in words:
                self.megabytes = max(self.megabytes, megabytes)
            elif "dagster" in words:
                self.servers_megabytes = max(self.servers_megabytes, megabytes)


def peak_megabytes(process: psutil.Process) -> float:
    """The most that the process has ever held; on other systems than Linux, what it holds now."""
    status = Path(f"/proc/{process.pid}/status")
    if sys.platform == "linux" and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) * 1024 / 1e6
    return float(process.memory_info().rss) / 1e6


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Watch Dagster's processes while the block lasts."""
    peak, over = Peak(), threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_EVERY_SECONDS):
            peak.look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()
        peak.look()
