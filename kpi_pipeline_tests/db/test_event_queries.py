"""What is asked of webhook_events every few minutes reads an index, and never the whole table."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import URL, Connection, Engine, event, text

from kpi_pipeline.db.check_queries import delivery, events
from kpi_pipeline.db.events import inbox, overlay
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline_tests.databases import another_database

NOW = datetime(2026, 3, 18, 20, 0, tzinfo=UTC)
TODAY = date(2026, 3, 18)
CLIENTS = [f"client-{number}" for number in range(26)]
_FILL = """
    INSERT INTO clients (workspace, instance, bison_workspace_id, name, active)
    SELECT 'client-' || n, 'main', 100 + n, 'Client ' || n, n > 0 FROM generate_series(0, 25) n;
    INSERT INTO raw_bison_stats (
        workspace, date, sent, total_opens, unique_opens, replied, unsubscribed, bounced,
        interested, as_of)
    SELECT 'client-' || n, day::date, 9, 9, 9, 9, 9, 9, 9, day + interval '19 hours'
    FROM generate_series(0, 25) n,
        generate_series(date '2026-02-01', date '2026-03-18', '1 day') day;
    INSERT INTO webhook_events (
        instance, source, arrived_at, idempotency_key, event_type, bison_workspace_id, workspace,
        metric, happened_at, business_date, status, applied_at)
    SELECT 'main', 'webhook', at, i::text, 'email_sent', 100 + i % 26,
        CASE WHEN status <> 'unmatched' THEN 'client-' || i % 26 END,
        CASE WHEN i % 30 = 0 THEN 'interested' ELSE 'sent' END, at,
        CASE WHEN i <> 7 THEN at::date END, status, CASE WHEN status = 'applied' THEN at END
    FROM (
        SELECT i, timestamptz '2026-03-18 20:00+00' - i * interval '130 seconds' AS at,
            CASE WHEN i % 26 = 0 THEN 'unmatched' WHEN i % 5000 = 1 THEN 'set_aside'
                WHEN i % 5000 = 2 THEN 'invalid' WHEN i < 9 THEN 'received' ELSE 'applied' END
            AS status
        FROM generate_series(1, 30000) i
    ) s;
"""
QUERIES: dict[str, Callable[[Connection], object]] = {
    "events to match": inbox.match_events,
    "events to date": lambda it: inbox.date_events(it, ZoneInfo("UTC")),
    "pending events": lambda it: overlay.pending_events(it, NOW),
    "rows that events affect": lambda it: overlay.affected_dates(it, CLIENTS, TODAY),
    "marking as applied": lambda it: overlay.mark_applied(it, CLIENTS, ZoneInfo("UTC"), NOW),
    "marking as applied what is due": lambda it: overlay.mark_applied(
        it, CLIENTS, ZoneInfo("UTC"), NOW, due_only=True
    ),
    "counted events": lambda it: overlay.read_counted_events(it, CLIENTS, date(2026, 2, 1), TODAY),
    "events applied lately": lambda it: events.applied_between(it, NOW - timedelta(minutes=1), NOW),
    "problems": lambda it: events.read_problem_events(it, NOW, 20),
    "leads": lambda it: delivery.read_leads(it, ["main"], TODAY - timedelta(days=8), TODAY),
    "first webhooks": lambda it: delivery.first_webhooks(it, ["main", "emea"]),
}


@pytest.fixture(scope="module")
def full(postgres: URL) -> Iterator[Engine]:
    """A database with thirty thousand events of 45 days, analyzed."""
    with another_database(postgres) as url:
        engine = open_engine(url)
        with engine.begin() as connection:
            connection.execute(text(_FILL))
            connection.execute(text("ANALYZE"))
        yield engine
        engine.dispose()


def plans_of(connection: Connection, query: Callable[[Connection], object]) -> list[str]:
    """The plans of the statements that a query executes."""
    plans: list[str] = []

    def explain(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
        with cursor.connection.cursor() as other:
            other.execute(f"EXPLAIN {statement}", parameters)
            plans.append("\n".join(row[0] for row in other.fetchall()))

    event.listen(connection, "before_cursor_execute", explain)
    query(connection)
    return plans


@pytest.mark.parametrize("name", QUERIES)
def test_a_frequent_query_reads_events_through_an_index(full: Engine, name: str) -> None:
    with full.connect() as connection:
        plans = plans_of(connection, QUERIES[name])
        connection.rollback()
    assert any("webhook_events" in plan for plan in plans)
    assert [plan for plan in plans if "Seq Scan on webhook_events" in plan] == []
