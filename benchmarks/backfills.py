"""Backfills by the page's own mutation, each row of them compared with Email Bison's totals."""

import csv
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, timedelta

import httpx
from rich.table import Table
from sqlalchemy import text

from benchmarks.installation import installation, peak_memory, run_ended
from kpi_pipeline.cli.common import err
from kpi_pipeline.db.registry.clients import all_clients
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.services.backfills import BackfillTarget, launch_backfill, read_status
from kpi_pipeline.services.dagster_home import child_environment
from kpi_pipeline.services.playground import Playground
from kpi_pipeline.services.servers import sandbox_server
from kpi_pipeline.sync.scope import KpiAsset
from kpi_pipeline_tests.expected import expected_rows

_SLOW = {"calls-per-second": 9.5, "latency": 0.25}
_SERIES = "/api/workspaces/v1.1/line-area-chart-stats"
_LONGEST_SECONDS = 1_800


@dataclass(frozen=True)
class Figures:
    """One backfill: its size, the seconds from request to end, calls, memory and result."""

    clients: int
    days: int
    seconds: float
    series_calls: int
    calls: int
    megabytes: float
    status: str
    rows: int

    @property
    def partitions(self) -> int:
        """Materializations: clients × days × 3 assets."""
        return self.clients * self.days * len(KpiAsset)


def year_of_every_client() -> Table:
    """26 clients × 365 days × 3 assets, and every row compared."""
    with installation({"clients": 26, **_SLOW}) as play:
        figures = _backfill(play, play.grid, 365)
        wrong = _wrong_rows(play, 365)
    table = _table("A year of every client, by the page's own mutation; 9.5 calls/s")
    _add(table, figures)
    table.caption = f"{wrong} of {figures.rows} rows differ from Email Bison's own totals"
    return table


def growth(clients: Sequence[int] = (1, 10, 26, 100), days: Sequence[int] = (30, 90, 365)) -> Table:
    """How the cost grows with clients and days."""
    table = _table("Backfills of growing size; 9.5 calls/s")
    with installation({"clients": 100, **_SLOW}) as play:
        for some in clients:
            for period in days:
                figures = _backfill(play, play.grid[:some], period)
                _add(table, figures)
                # It takes half an hour: what is known is said at once.
                err.print(f"{figures.clients} × {figures.days}: {figures.seconds:.0f} s")
    return table


def a_run_for_each_partition() -> Table:
    """The naive way beside ours: 30 partitions as a run each, and as one run."""
    table = Table(title="30 days of one client; 9.5 calls/s", title_justify="left")
    for heading in ("Way", "Request to end", "All calls", "A year of 26 clients at that pace"):
        table.add_column(heading, justify="right")
    with installation({"clients": 26, **_SLOW}) as play:
        dates, workspace = _closed_days(play, 30), play.grid[0]
        single = [{"dagster/partition": f"{day}|{workspace}"} for day in dates]
        for way, runs in (
            ("a run for each partition", single),
            ("one run", [block_tags([workspace], dates)]),
        ):
            _empty(play)
            httpx.delete(f"{play.sandbox}/sandbox/calls").raise_for_status()
            seconds = _seconds_of(play, runs)
            calls = httpx.get(f"{play.sandbox}/sandbox/calls").json()["total"]
            hours = seconds / len(dates) * 26 * 365 / 3_600
            table.add_row(way, f"{seconds:.1f} s", str(calls), f"{hours:.1f} h")
    return table


def _seconds_of(play: Playground, runs: Sequence[Mapping[str, str]]) -> float:
    """From the first request to the end of the last of these runs over all three assets."""
    started = time.monotonic()
    launched = [play.page.launch([step.value for step in KpiAsset], tags) for tags in runs]
    for run in launched:
        run_ended(play, run)
    return time.monotonic() - started


def _backfill(play: Playground, workspaces: Sequence[str], days: int) -> Figures:
    """Fill the last `days` closed days of these clients; nothing of them is there before."""
    _empty(play)
    httpx.delete(f"{play.sandbox}/sandbox/calls").raise_for_status()
    dates = _closed_days(play, days)
    target = BackfillTarget(dict.fromkeys(workspaces, dates))
    with peak_memory() as peak:
        started = time.monotonic()
        backfill_id = launch_backfill(play.page, target)
        while not (status := read_status(play.page, backfill_id)).ended:
            if time.monotonic() - started > _LONGEST_SECONDS:
                break
            time.sleep(0.5)
        seconds = time.monotonic() - started
    log = httpx.get(f"{play.sandbox}/sandbox/calls", timeout=30).json()["calls"]
    paths = Counter(call["path"] for call in log)
    with play.app.engine.connect() as connection:
        rows = connection.scalar(text("SELECT count(*) FROM client_metrics")) or 0
    return Figures(
        clients=len(workspaces),
        days=days,
        seconds=seconds,
        series_calls=paths[_SERIES],
        calls=len(log),
        megabytes=peak.megabytes,
        status=status.name,
        rows=rows,
    )


def _closed_days(play: Playground, days: int) -> list[date]:
    yesterday = play.app.today() - timedelta(days=1)
    return days_between(yesterday - timedelta(days=days - 1), yesterday)


def _empty(play: Playground) -> None:
    with play.app.engine.begin() as connection:
        for step in reversed(KpiAsset):
            connection.execute(text(f"TRUNCATE {step.value}"))


def _wrong_rows(play: Playground, days: int) -> int:
    """How many rows are not what a twin of the sandbox, without its limits, adds up itself."""
    dates = _closed_days(play, days)
    settings = play.app.settings
    with play.app.engine.connect() as connection:
        clients = all_clients(connection)
        found = connection.execute(text("SELECT * FROM client_metrics")).mappings()
        rows = {(row["workspace"], row["metric_date"]): dict(row) for row in found}
    with ExitStack() as stack:
        limits = {"clients": len(clients), "calls-per-second": 0, "latency": 0}
        environment = child_environment(settings)
        twin, _ = stack.enter_context(sandbox_server(settings, environment, limits))
        setup = httpx.get(f"{twin}/sandbox/setup").json()
        listed = csv.DictReader(httpx.get(f"{twin}/sandbox/clients.csv").text.splitlines())
        targets = {int(row["bison_workspace_id"]): row["monthly_kpi_target"] for row in listed}
        expected = expected_rows(
            twin,
            setup["master_key"],
            {
                it.workspace: (
                    it.bison_workspace_id,
                    None,
                    int(targets[it.bison_workspace_id] or 0) or None,
                )
                for it in clients
            },
            dates,
            settings.day_zone,
            play.app.now(),
        )
    return sum(
        any(rows.get(key, {}).get(name, "no row") != value for name, value in row.items())
        for key, row in expected.items()
    ) + len(rows.keys() - expected.keys())


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in (
        "Clients",
        "Days",
        "Materializations",
        "Request to end",
        "per 1,000",
        "Series calls",
        "All calls",
        "Run's peak",
    ):
        table.add_column(heading, justify="right")
    table.add_column("Status")
    return table


def _add(table: Table, figures: Figures) -> None:
    table.add_row(
        str(figures.clients),
        str(figures.days),
        f"{figures.partitions:,}",
        f"{figures.seconds:.0f} s",
        f"{1000 * figures.seconds / figures.partitions:.1f} s",
        str(figures.series_calls),
        str(figures.calls),
        f"{figures.megabytes:.0f} MB",
        figures.status,
    )
