"""Backfills by the page's own mutation, each row of them compared with Email Bison's totals."""

import csv
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, timedelta

import httpx
from rich.table import Table
from sqlalchemy import text

from benchmarks.installation import cpu_seconds, installation, peak_memory, run_ended
from kpi_pipeline.cli.common import err
from kpi_pipeline.db.registry.clients import all_clients
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.services.backfills import BackfillTarget, launch_backfill, read_status
from kpi_pipeline.services.dagster_home import child_environment
from kpi_pipeline.services.playground import Playground
from kpi_pipeline.services.servers import sandbox_server, started_in_order
from kpi_pipeline.sync.scope import KpiAsset
from kpi_pipeline_tests.expected import expected_rows

_SLOW = {"calls-per-second": 9.5, "latency": 0.25}
_RUNS = """query ($id: String!) { partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { runs(limit: 1000) { id } } } }"""
_LONGEST_SECONDS = 1_800
# The twin adds up each window of each row over HTTP, a dozen calls a row: 2,000 rows took a minute
# or two, longer than the backfill. So of large backfills some dates are compared.
_ROWS_COMPARED_AT_MOST = 500


@dataclass(frozen=True)
class Figures:
    """One backfill: its size, seconds from the request until all partitions are green, and to its
    end, runs, CPU seconds of Dagster and PostgreSQL, calls, memory, result, and rows compared."""

    clients: int
    days: int
    green: float
    seconds: float
    runs: int
    cpu: float
    calls: int
    megabytes: float
    status: str
    compared: int
    wrong: int

    @property
    def partitions(self) -> int:
        """Materializations: clients × days × 3 assets."""
        return self.clients * self.days * len(KpiAsset)


def year_of_every_client() -> Table:
    """26 clients × 365 days × 3 assets."""
    table = _table("A year of every client, by the page's own mutation; 9.5 calls/s")
    with installation({"clients": 26, **_SLOW}) as play:
        _add(table, _backfill(play, play.grid, 365))
    return table


def growth() -> Table:
    """How the cost grows with clients and days, whatever the shape."""
    table = _table("Backfills of growing size, on a grid of 100 clients; 9.5 calls/s")
    shapes = [(1, 30), (1, 365), (10, 30), (26, 90), (100, 10), (100, 90), (100, 365)]
    with installation({"clients": 100, **_SLOW}) as play:
        for clients, days in shapes:
            figures = _backfill(play, play.grid[:clients], days)
            _add(table, figures)
            # It takes a quarter of an hour: what is known is said at once.
            err.print(f"{figures.clients} × {figures.days}: {figures.seconds:.0f} s")
    return table


def click_to_green() -> Table:
    """30 days of one client, six times: the first one also verifies the client's key."""
    table = _table("From click to green: 30 days of one client; 9.5 calls/s")
    with installation({"clients": 26, **_SLOW}) as play:
        for _ in range(6):
            _add(table, _backfill(play, play.grid[:1], 30))
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
    cpu = cpu_seconds(play)
    with peak_memory() as peak:
        started, green = time.monotonic(), None
        backfill_id = launch_backfill(play.page, target)
        while not (status := read_status(play.page, backfill_id)).ended:
            seconds = time.monotonic() - started
            if status.targeted and status.filled == status.targeted and green is None:
                green = seconds
            if seconds > _LONGEST_SECONDS:
                break
            # Answering costs the page up to a second, on the cores that do the work.
            time.sleep(max(0.2, seconds / 20))
        seconds = time.monotonic() - started
    cpu = cpu_seconds(play) - cpu
    log = httpx.get(f"{play.sandbox}/sandbox/calls", timeout=30).json()
    compared = dates[:: -(-len(workspaces) * days // _ROWS_COMPARED_AT_MOST)]
    return Figures(
        clients=len(workspaces),
        days=days,
        green=seconds if green is None else green,
        seconds=seconds,
        runs=len(play.page.query(_RUNS, {"id": backfill_id})["partitionBackfillOrError"]["runs"]),
        cpu=cpu,
        calls=log["total"],
        megabytes=peak.megabytes,
        status=status.name,
        compared=len(workspaces) * len(compared),
        wrong=_wrong_rows(play, workspaces, compared),
    )


def _closed_days(play: Playground, days: int) -> list[date]:
    yesterday = play.app.today() - timedelta(days=1)
    return days_between(yesterday - timedelta(days=days - 1), yesterday)


def _empty(play: Playground) -> None:
    with play.app.engine.begin() as connection:
        for step in reversed(KpiAsset):
            connection.execute(text(f"TRUNCATE {step.value}"))


def _wrong_rows(play: Playground, workspaces: Sequence[str], dates: Sequence[date]) -> int:
    """How many rows are not what a twin of the sandbox, without its limits, adds up itself."""
    settings = play.app.settings
    with play.app.engine.connect() as connection:
        clients = all_clients(connection)
        found = connection.execute(text("SELECT * FROM client_metrics")).mappings()
        rows = {(row["workspace"], row["metric_date"]): dict(row) for row in found}
    with ExitStack() as stack:
        limits = {"clients": len(clients), "calls-per-second": 0, "latency": 0}
        environment = child_environment(settings)
        twin, sandbox = sandbox_server(settings, environment, limits)
        started_in_order(stack, [sandbox])
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
                if it.workspace in workspaces
            },
            dates,
            settings.day_zone,
            play.app.now(),
        )
    return sum(
        any(rows.get(key, {}).get(name, "no row") != value for name, value in row.items())
        for key, row in expected.items()
    )


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in (
        "Clients",
        "Days",
        "Materializations",
        "To green",
        "To end",
        "each",
        "Runs",
        "CPU",
        "each",
        "Calls",
        "Run's peak",
        "Rows that differ",
    ):
        table.add_column(heading, justify="right")
    table.add_column("Status")
    return table


def _add(table: Table, figures: Figures) -> None:
    table.add_row(
        str(figures.clients),
        str(figures.days),
        f"{figures.partitions:,}",
        f"{figures.green:.1f} s",
        f"{figures.seconds:.1f} s",
        f"{1000 * figures.seconds / figures.partitions:.2f} ms",
        str(figures.runs),
        f"{figures.cpu:.0f} s",
        f"{1000 * figures.cpu / figures.partitions:.2f} ms",
        str(figures.calls),
        f"{figures.megabytes:.0f} MB",
        f"{figures.wrong} of {figures.compared}",
        figures.status,
    )
