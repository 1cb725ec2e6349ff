"""100 open pages at 20 events a second: from a row's commit to each page, and what it takes."""

import asyncio
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from rich.table import Table
from sqlalchemy import Engine, text

from benchmarks.installation import peak_megabytes
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.db.server.urls import parse_url
from kpi_pipeline.domain.calendar import business_date, days_between
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.services.processes import Child, answers, free_port
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.dashboard.rows import CHICAGO, put_clients, put_rows

PAGES = 100
_EVENTS_A_SECOND = 20
_SECONDS = 30
# Most people look at the same; some have filters, an order or a layout of their own.
_QUERIES = [
    *["/live"] * 60,
    *["/live?sort=-positive_replies_mtd"] * 15,
    *["/live?status=behind"] * 10,
    *["/live?view=cards"] * 10,
    *["/live?q=1"] * 5,
]

_LONGEST_EVENT = 4 * 2**20
# A number that no row has; each event writes a larger one.
_FIRST_NUMBER = 1_000_000
_ROW = re.compile(
    rb'id="row-([^"]+)"(?:(?!id="row-).)*?data-c="emails_sent_mtd"[^>]*>([\d,]+)<', re.DOTALL
)
_WORKSPACES = text(
    "SELECT workspace FROM client_metrics "
    "WHERE metric_date = (SELECT max(metric_date) FROM client_metrics)"
)
_WRITE = text(
    "UPDATE client_metrics SET emails_sent_mtd = :number WHERE workspace = :workspace "
    "AND metric_date = (SELECT max(metric_date) FROM client_metrics)"
)


@dataclass(frozen=True)
class LiveFigures:
    """Seconds from commit to page, by percentile; the server's memory and processor time."""

    p50: float
    p95: float
    longest: float
    megabytes: float
    cores: float
    arrivals: int


def live_figures(database: str) -> LiveFigures:
    """Measure a dashboard, as a process of its own, on this database with rows of today.

    A page has an event once a `change` arrives that was rendered after the event's commit.
    """
    engine = open_engine(parse_url(database, "the database"))
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            served_dashboard(database, Path(folder)) as served,
        ):
            url, child = served
            process = psutil.Process(child.pid)
            return asyncio.run(_measured(url, engine, process))
    finally:
        engine.dispose()


@contextmanager
def served_dashboard(database: str, folder: Path, **settings: str) -> Iterator[tuple[str, Child]]:
    """A dashboard as a process of its own, and its address; `settings` are KPI_ variables."""
    port = free_port()
    command = [sys.executable, "-m", "kpi_pipeline.cli.main", "dashboard", "--port", str(port)]
    environment = (
        os.environ | {"KPI_DATABASE_URL": database, "KPI_STATE_DIR": str(folder)} | settings
    )
    with Child("The dashboard", command, environment, folder / "dashboard.log") as child:
        url = f"http://127.0.0.1:{port}"
        child.wait_until(lambda: answers(f"{url}/healthz"), 60)
        yield url, child


async def _measured(url: str, engine: Engine, process: psutil.Process) -> LiveFigures:
    # By workspace: the number that each event writes, and when it was committed.
    committed: dict[str, list[tuple[int, float]]] = {}
    seconds: list[float] = []
    ready = [asyncio.Event() for _ in range(PAGES)]
    pages = [
        asyncio.create_task(_page(url, query, is_ready, committed, seconds))
        for query, is_ready in zip(_QUERIES, ready, strict=True)
    ]
    await asyncio.gather(*(it.wait() for it in ready))
    before, started = process.cpu_times(), time.monotonic()
    await asyncio.to_thread(_send, engine, committed)
    # The last ones arrive.
    await asyncio.sleep(2)
    after, passed = process.cpu_times(), time.monotonic() - started
    for page in pages:
        assert not page.done(), "a page lost its stream"
        page.cancel()
    await asyncio.gather(*pages, return_exceptions=True)
    used = after.user + after.system - before.user - before.system
    seconds.sort()
    return LiveFigures(
        p50=statistics.median(seconds),
        p95=seconds[int(0.95 * len(seconds))],
        longest=seconds[-1],
        megabytes=peak_megabytes(process),
        cores=used / passed,
        arrivals=len(seconds),
    )


async def _page(
    url: str,
    query: str,
    ready: asyncio.Event,
    committed: Mapping[str, Sequence[tuple[int, float]]],
    seconds: list[float],
) -> None:
    """Read a page's events; a browser does no less, and this client takes little time for it."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(
        address.hostname, address.port, limit=_LONGEST_EVENT
    )
    writer.write(f"GET {query} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
    seen: dict[str, int] = {}
    try:
        while True:
            event = await reader.readuntil(b"\n\n")
            now = time.monotonic()
            if b"event: reload" in event:
                raise AssertionError("the page was too slow")
            if b"event: change" not in event:
                continue
            for row, number in _ROW.findall(event):
                workspace, value = row.decode(), int(number.replace(b",", b""))
                events = committed.get(workspace, ())
                place = seen.get(workspace, 0)
                while place < len(events) and events[place][0] <= value:
                    seconds.append(now - events[place][1])
                    place += 1
                seen[workspace] = place
            # The first has everything, as this page named no version.
            ready.set()
    finally:
        writer.close()


def _send(engine: Engine, committed: dict[str, list[tuple[int, float]]]) -> None:
    """Have so many events a second write a number into a row of today."""
    with engine.connect() as connection:
        workspaces = connection.execute(_WORKSPACES).scalars().all()
        started = time.monotonic()
        for place in range(_EVENTS_A_SECOND * _SECONDS):
            time.sleep(max(0.0, started + place / _EVENTS_A_SECOND - time.monotonic()))
            workspace, number = random.choice(workspaces), _FIRST_NUMBER + place
            connection.execute(_WRITE, {"workspace": workspace, "number": number})
            committed.setdefault(workspace, []).append((number, time.monotonic()))
            connection.commit()


def dashboard_live() -> Table:
    """The figures for an agency of 26 clients on an embedded database of its own."""
    with tempfile.TemporaryDirectory(prefix="kpi-bench-") as folder:
        os.environ |= {"KPI_ENV_FILE": "", "KPI_STATE_DIR": folder, "KPI_TIMEZONE": CHICAGO.key}
        with ready_databases(load_settings()) as settings:
            assert settings.database_url is not None
            database = settings.database_url.get_secret_value()
            _fill(open_engine(parse_url(database, "the database")))
            figures = live_figures(database)
    table = Table(
        title=f"{PAGES} open pages of 26 clients at {_EVENTS_A_SECOND} events a second",
        title_justify="left",
    )
    for heading in ("p50", "p95", "longest", "Arrivals", "Peak memory", "Processors"):
        table.add_column(heading, justify="right")
    table.add_row(
        *(f"{1e3 * it:.0f} ms" for it in (figures.p50, figures.p95, figures.longest)),
        f"{figures.arrivals:,}",
        f"{figures.megabytes:.0f} MB",
        f"{figures.cores:.2f}",
    )
    table.caption = "asked for: p95 ≤ 500 ms from commit to page, memory ≤ 250 MB"
    return table


def _fill(engine: Engine) -> None:
    now = utc_now()
    today = business_date(now, CHICAGO)
    workspaces = [f"client-{number:02}" for number in range(26)]
    put_clients(engine, *workspaces)
    for workspace in workspaces:
        put_rows(engine, workspace, days_between(today - timedelta(days=70), today), as_of=now)
    engine.dispose()
