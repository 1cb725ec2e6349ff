"""A round of all checks that ask the database alone, over 1,000 clients × 62 days."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.table import Table
from sqlalchemy import Engine, event, text

from benchmarks.installation import installation, peak_memory, run_ended
from kpi_pipeline.orchestration.asset_checks.execution import run_checks
from kpi_pipeline.orchestration.asset_checks.specs import LIGHT_CHECKS
from kpi_pipeline.services.dagster_home import dagster_instance
from kpi_pipeline.services.dagster_page import RunStatus
from kpi_pipeline.services.playground import Playground

_SANDBOX = {"clients": 1_000, "calls-per-second": 0, "latency": 0}
_DAYS = 62
_LIMIT_SECONDS, _LIMIT_QUERIES = 10, 25

# Numbers of an agency's size, made in the database: what a sync would fetch is not measured here.
_FACTS = """
INSERT INTO raw_bison_stats (workspace, date, sent, replied, interested, bounced, unsubscribed,
    total_opens, unique_opens, as_of)
SELECT c.workspace, d::date, 200 + hashtext(c.workspace || d) % 100, 2, 1, 3, 1, 0, 0,
    CAST(:now AS timestamptz)
FROM clients c, generate_series(CAST(:today AS date) - :days, CAST(:today AS date), '1 day') d
"""
_ROWS = """
INSERT INTO client_metrics (workspace, workspace_name, display_name, metric_date, as_of, source,
    emails_sent_mtd, positive_replies_mtd, emails_sent_last_7_days, emails_sent_last_14_days,
    emails_sent_last_30_days, positive_replies_last_7_days, positive_replies_last_14_days,
    positive_replies_last_30_days)
SELECT f.workspace, f.workspace, f.workspace, f.date, f.as_of, 'sync',
    200 * extract(day FROM f.date), extract(day FROM f.date), 1, 2, 3, 1, 2, 3
FROM raw_bison_stats f
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
    table = Table(title=f"A round of {len(results)} checks, 1,000 clients × {_DAYS} days")
    table.title_justify = "left"
    figures = {
        f"In its run\n≤ {_LIMIT_SECONDS} s": f"{seconds:.1f} s",
        "Request to end": f"{whole:.1f} s",
        "The checks alone": f"{alone:.2f} s",
        f"Queries\n≤ {_LIMIT_QUERIES}": str(queries[0]),
        "A run's peak": f"{peak.megabytes:.0f} MB",
    }
    for heading in figures:
        table.add_column(heading, justify="right")
    table.add_row(*figures.values())
    return table


def _fill(play: Playground) -> None:
    values = {"now": play.app.now(), "today": play.app.today(), "days": _DAYS}
    with play.app.engine.begin() as connection:
        connection.execute(text(_FACTS), values)
        connection.execute(text(_ROWS))


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
