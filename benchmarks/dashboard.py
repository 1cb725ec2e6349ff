"""The dashboard's overview: how long it takes, how much it weighs, and when it is seen."""

import math
import os
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx
from pydantic import SecretStr
from rich.table import Table
from sqlalchemy import Engine, event, text

from benchmarks.dashboard_live import served_dashboard
from kpi_pipeline.dashboard.app import create_app
from kpi_pipeline.dashboard.site import Site
from kpi_pipeline.db.migrate import upgrade
from kpi_pipeline.db.server.clock import DatabaseClock
from kpi_pipeline.db.server.embedded import embedded_server
from kpi_pipeline.db.server.engine import ensure_database, open_engine
from kpi_pipeline.db.server.urls import dagster_url
from kpi_pipeline.domain.columns import COUNTS, PERCENTAGES
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.dashboard.browsing import browsing
from kpi_pipeline_tests.end_to_end.chromium import find_chromium, open_page

_DAYS = 365
_REQUESTS = 200
_PAINTS = 9
_PASSWORD = "a password of the benchmark"
_LOGIN = {"name": "", "password": _PASSWORD}
_ZONE = ZoneInfo("America/Chicago")
# Each size of an agency, and the limit of its server time.
_AGENCIES = {26: 25, 1_000: 100}

_CLIENTS = """
INSERT INTO clients (workspace, instance, bison_workspace_id, name, active)
SELECT 'client-' || n, 'main', n, 'Client number ' || n, true FROM generate_series(1, :clients) n
"""
# Numbers of the size that an agency has; what they say is not measured.
_ROWS = f"""
INSERT INTO client_metrics (workspace_name, metric_date, {", ".join((*COUNTS, *PERCENTAGES))},
    monthly_kpi_target, monthly_sending_target, emails_scheduled_today, emails_scheduled_tomorrow,
    workspace, display_name, as_of, source)
SELECT 'Client number ' || n, CAST(:today AS date) - d,
    {", ".join("20 + (n * 7 + d * 13) % 50" for _ in COUNTS)},
    {", ".join("(n * 3 + d) % 120 + 0.25" for _ in PERCENTAGES)},
    50 + n % 40, 40000, 1500, 1600, 'client-' || n, 'Client number ' || n,
    least(now(), now() - d * interval '1 day'), 'sync'
FROM generate_series(0, :days - 1) d, generate_series(1, :clients) n
"""
_SYNCS = """
INSERT INTO sync_log (run_id, workspace, first_date, last_date, status, api_calls, seconds,
    finished_at)
SELECT 'run ' || r, 'client-' || n, now()::date, now()::date, 'ok', 2, 1.5,
    now() - r * interval '900 s'
FROM generate_series(1, :clients) n, generate_series(1, 96) r
"""
# As far as the metrics read Dagster's own tables, which an installation has beside ours.
_DAGSTER = """
CREATE TABLE runs (status text);
CREATE TABLE kvs (key text, value text);
CREATE TABLE daemon_heartbeats (daemon_type text, timestamp timestamp)
"""
_CHECKS = """
INSERT INTO check_outcomes (check_name, asset, passed, severity, description, offenders, more,
    clients, checked_at, failing_since)
SELECT 'plausible', 'client_metrics', false, 'WARN', '', jsonb_agg(jsonb_build_object(
    'workspace', 'client-' || n, 'problem', 'no positive reply in 7 days')), 0,
    jsonb_agg('client-' || n), now(), now()
FROM generate_series(1, 50) n
"""


@dataclass(frozen=True)
class _Served:
    """A dashboard at an address, a visitor who has logged in, and the queries of a page."""

    url: str
    visitor: httpx.Client
    queries: int


def overview() -> Table:
    """The page of all clients, as a visitor with a login gets it over HTTP."""
    table = Table(title=f"The overview, {_DAYS} days of rows, with a login", title_justify="left")
    for heading in (
        "Clients",
        "Server time\nmedian",
        "95th percentile",
        "Queries\n≤ 3",
        "HTML,\ncompressed",
        "Page with everything,\ncompressed ≤ 120 KB",
        "First contentful\npaint ≤ 200 ms",
    ):
        table.add_column(heading, justify="right")
    for clients, limit in _AGENCIES.items():
        with _dashboard(clients) as dashboard:
            table.add_row(f"{clients:,}", *_measured(dashboard, limit))
    return table


def metrics() -> Table:
    """`GET /metrics`, as Prometheus gets it over HTTP, with a login."""
    table = Table(title="GET /metrics, a day of refreshes", title_justify="left")
    for heading in ("Clients", "Server time\nmedian ≤ 20 ms", "95th percentile", "Compressed"):
        table.add_column(heading, justify="right")
    clients = max(_AGENCIES)
    with _dashboard(clients) as dashboard:
        answer = dashboard.visitor.get("/metrics")
        times = _times(dashboard.visitor, "/metrics")
    table.add_row(
        f"{clients:,}",
        f"{statistics.median(times):.1f} ms",
        f"{_percentile(times, 95):.1f} ms",
        f"{_transferred(answer) / 1_000:.1f} KB",
    )
    return table


def _times(visitor: httpx.Client, path: str) -> list[float]:
    """How many milliseconds each of some requests took, after a first one."""
    visitor.get(path)
    times = []
    for _ in range(_REQUESTS):
        started = time.perf_counter()
        answer = visitor.get(path)
        times.append((time.perf_counter() - started) * 1_000)
        assert answer.status_code == 200
    return times


def _measured(dashboard: _Served, limit: int) -> list[str]:
    visitor = dashboard.visitor
    page = visitor.get("/")
    times = _times(visitor, "/")
    size = _transferred(page)
    whole = size + sum(
        _transferred(visitor.get(path))
        for path in re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)
    )
    paint = _first_paint(dashboard)
    return [
        f"{statistics.median(times):.1f} ms",
        f"{_percentile(times, 95):.1f} ms (≤ {limit} ms)",
        f"{dashboard.queries}",
        f"{size / 1_000:.1f} KB",
        f"{whole / 1_000:.1f} KB",
        "no browser" if paint is None else f"{paint:.0f} ms",
    ]


def _first_paint(dashboard: _Served) -> float | None:
    """The median of the times from the request to the first contents, with an empty cache."""
    if (executable := find_chromium()) is None:
        return None
    cookies = [
        {"name": name, "value": value, "url": dashboard.url}
        for name, value in dashboard.visitor.cookies.items()
    ]
    entries = "performance.getEntriesByName('first-contentful-paint')"
    times = []
    with open_page(executable) as first:
        browser = first.context.browser
        assert browser is not None
        for _ in range(_PAINTS):
            with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
                context.add_cookies(cookies)  # type: ignore[arg-type]
                page = context.new_page()
                page.goto(f"{dashboard.url}/")
                page.wait_for_function(f"{entries}.length > 0")
                times.append(float(page.evaluate(f"{entries}[0].startTime")))
    return statistics.median(times)


@contextmanager
def _dashboard(clients: int) -> Iterator[_Served]:
    with tempfile.TemporaryDirectory(prefix="kpi-bench-") as folder:
        os.environ |= {"KPI_ENV_FILE": "", "KPI_STATE_DIR": folder}
        settings = Settings(timezone=_ZONE, bison_timezone=_ZONE, web_password=SecretStr(_PASSWORD))
        with embedded_server(Path(folder)) as address:
            ensure_database(address)
            engine = open_engine(address, pool_size=4)
            upgrade(engine)
            ensure_database(dagster_url(address))
            dagster = open_engine(dagster_url(address), pool_size=1)
            with dagster.begin() as connection:
                connection.execute(text(_DAGSTER))
            dagster.dispose()
            site = Site(settings, engine, DatabaseClock(engine))
            _fill(engine, site, clients)
            queries = _queries(site, engine)
            database = engine.url.render_as_string(hide_password=False)
            variables = {
                "KPI_WEB_PASSWORD": _PASSWORD,
                "KPI_TIMEZONE": _ZONE.key,
                "KPI_BISON_TIMEZONE": _ZONE.key,
            }
            # A process of its own: in one with the visitor, they would wait for each other.
            with (
                served_dashboard(database, Path(folder), **variables) as (url, _),
                httpx.Client(base_url=url, trust_env=False, timeout=60) as visitor,
            ):
                visitor.headers.update({"accept": "text/html", "accept-encoding": "gzip"})
                assert visitor.post("/login", data=_LOGIN).status_code == 303
                yield _Served(url, visitor, queries)
            engine.dispose()


def _fill(engine: Engine, site: Site, clients: int) -> None:
    with engine.begin() as connection:
        connection.execute(text(_CLIENTS), {"clients": clients})
        values = {"clients": clients, "days": _DAYS, "today": site.today()}
        connection.execute(text(_ROWS), values)
        connection.execute(text("DELETE FROM changed_rows"))
        connection.execute(text(_SYNCS), {"clients": clients})
        connection.execute(text(_CHECKS))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def _queries(site: Site, engine: Engine) -> int:
    """How many statements a page takes, its login included."""
    found: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(*arguments: object) -> None:
        found.append(str(arguments[2]))

    with browsing(create_app(site)) as visitor:
        assert visitor.post("/login", data=_LOGIN).status_code == 303
        visitor.get("/")
        found.clear()
        assert visitor.get("/").status_code == 200
    event.remove(engine, "before_cursor_execute", note)
    return len(found)


def _transferred(answer: httpx.Response) -> int:
    """How many bytes of its body were sent."""
    return int(answer.headers.get("content-length") or answer.num_bytes_downloaded)


def _percentile(values: list[float], percent: int) -> float:
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]
