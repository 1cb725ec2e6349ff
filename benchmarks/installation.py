"""What benchmarks run on: a fresh installation, with Dagster's page and daemon, and its memory."""

import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date

import psutil

from kpi_pipeline.cli.dagster_page import RunStatus
from kpi_pipeline.cli.playground import Playground, playground
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.end_to_end.schedules import stop_schedules


@contextmanager
def installation(sandbox: Mapping[str, object]) -> Iterator[Playground]:
    """A fresh installation in a folder of its own: registry refreshed, schedules at rest.

    `sandbox` holds options of `kpi sandbox`, by name.
    """
    with tempfile.TemporaryDirectory(prefix="kpi-bench-") as folder:
        os.environ |= {"KPI_ENV_FILE": "", "KPI_STATE_DIR": folder}
        settings = load_settings().model_copy(update={"web_port": 0})
        with playground(settings, sandbox, date(2020, 1, 1)) as play:
            stop_schedules(play.page)
            registry = play.page.launch(["client_registry"], {})
            while play.page.status(registry) is RunStatus.UNDER_WAY:
                time.sleep(0.2)
            yield play


class Peak:
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
def peak_memory() -> Iterator[Peak]:
    """Watch the processes of runs while the block lasts."""
    peak, over = Peak(), threading.Event()

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
