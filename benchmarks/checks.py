"""A round of all checks that ask the database alone, over 1,000 clients × 62 days."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.table import Table
from sqlalchemy import Engine, event, text

from benchmarks.installation import installation, peak_memory, run_ended
from kpi_pipeline.checks.rows_match_inputs import rows_match_inputs
from kpi_pipeline.db.recompute import update_rows
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.orchestration.asset_checks.execution import run_checks
from kpi_pipeline.orchestration.asset_checks.specs import LIGHT_CHECKS
from kpi_pipeline.services.dagster_home import dagster_instance
from kpi_pipeline.services.dagster_page import RunStatus
from kpi_pipeline.services.playground import Playground

_SANDBOX = {"clients": 1_000, "calls-per-second": 0, "latency": 0}
_DAYS = 62
_LIMIT_SECONDS, _LIMIT_QUERIES = 10, 25

# So many clients' rows are computed together.
_GROUP = 25
_EVENTS = 300_000

# Numbers of an agency's size, made in the database: what a sync would fetch is not measured here.
# Facts begin two months before the rows, as the windows of these reach back.
_FACTS = """
INSERT INTO raw_bison_stats (workspace, date, sent, replied, interested, bounced, unsubscribed,
    total_opens, unique_opens, as_of)
SELECT c.workspace, day, 200 + hashtext(c.workspace || day) % 100, 2, 1, 3, 1, 0, 0,
    least(:now, (day + 1)::timestamp AT TIME ZONE :zone)
FROM clients c, generate_series(0, :days + 62) n, LATERAL (SELECT CAST(:today AS date) - n AS day) d
"""
# All but a few of these are in the facts.
_APPLIED = """
INSERT INTO webhook_events (instance, source, arrived_at, body, idempotency_key, event_type,
    workspace, metric, happened_at, business_date, status)
SELECT 'main', 'webhook', at, convert_to(repeat(md5(n::text), 20), 'UTF8'), 'benchmark ' || n,
    'email_sent', c.workspace, 'sent', at, (at AT TIME ZONE :zone)::date, 'applied'
FROM (SELECT workspace, row_number() OVER (ORDER BY workspace) - 1 AS number FROM clients) c
JOIN generate_series(0, :events - 1) n ON n % :clients = c.number
CROSS JOIN LATERAL (
    SELECT CAST(:now AS timestamptz) - n * interval '1 day' * :days / :events AS at
) t
"""


def round_of_checks() -> Table:
    """One round as a run of its own, and its queries, counted in this process."""
    with installation(_SANDBOX, grid_days=_DAYS) as play:
        _fill(play)
        with peak_memory() as peak:
            seconds, whole = _as_a_run(play)
        with (
            dagster_instance(play.app.settings) as instance,
            _counted(play.app.engine) as queries,
        ):
            started = time.monotonic()
            names = {key.name for key in LIGHT_CHECKS}
            results = list(run_checks(play.app, names, instance))
            alone = time.monotonic() - started
        with play.app.engine.connect() as connection:
            started = time.monotonic()
            found = rows_match_inputs(connection, play.app.today(), play.app.day_zone)
            twice = time.monotonic() - started
    if not found.passed:
        raise RuntimeError(f"the rows are not what their inputs give: {found.description}")
    table = Table(title=f"A round of {len(results)} checks, 1,000 clients × {_DAYS} days")
    table.title_justify = "left"
    figures = {
        f"In its run\n≤ {_LIMIT_SECONDS} s": f"{seconds:.1f} s",
        "Request to end": f"{whole:.1f} s",
        "The checks alone": f"{alone:.2f} s",
        f"{found.numbers['rows']:,} rows\na second time": f"{twice:.2f} s",
        f"Queries\n≤ {_LIMIT_QUERIES}": str(queries[0]),
        "A run's peak": f"{peak.megabytes:.0f} MB",
    }
    for heading in figures:
        table.add_column(heading, justify="right")
    table.add_row(*figures.values())
    return table


def _fill(play: Playground) -> None:
    today, zone = play.app.today(), play.app.day_zone
    values = {"now": play.app.now(), "today": today, "days": _DAYS, "zone": zone.key}
    events = {"events": _EVENTS, "clients": len(play.grid)}
    with play.app.engine.begin() as connection:
        connection.execute(text(_FACTS), values)
        connection.execute(text(_APPLIED), {**values, **events})
    dates = days_between(today - timedelta(days=_DAYS - 1), today)
    for start in range(0, len(play.grid), _GROUP):
        group = play.grid[start : start + _GROUP]
        with play.app.engine.begin() as connection:
            update_rows(
                connection,
                group,
                since=today,
                zone=zone,
                source="sync",
                dates=dates,
            )


def _as_a_run(play: Playground) -> tuple[float, float]:
    """How long the run took by its own clock, and from the request to its end."""
    checks = [(key.asset_key.to_user_string(), key.name) for key in LIGHT_CHECKS]
    started = time.monotonic()
    run_id = play.page.launch([], {}, checks)
    status = run_ended(play, run_id)
    whole = time.monotonic() - started
    if status is not RunStatus.SUCCESS:
        raise RuntimeError(f"the round failed: {play.page.run_address(run_id)}")
    query = "query ($run: ID!) { runOrError(runId: $run) { ... on Run { startTime endTime } } }"
    run = play.page.query(query, {"run": run_id})["runOrError"]
    return run["endTime"] - run["startTime"], whole


@contextmanager
def _counted(engine: Engine) -> Iterator[list[int]]:
    """How many statements the block sends through the engine."""
    count = [0]

    def note(*_: object) -> None:
        count[0] += 1

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield count
    finally:
        event.remove(engine, "before_cursor_execute", note)
