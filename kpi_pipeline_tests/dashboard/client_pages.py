"""Reads the page of one client as text, and stores syncs and events for it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from html import unescape
from typing import Any

from sqlalchemy import Connection, Engine, event, insert

from kpi_pipeline.db.tables import (
    sync_log,
    webhook_events,
)
from kpi_pipeline_tests.conftest import NOW
from kpi_pipeline_tests.dashboard.rows import (
    TODAY,
)


def table_cells(page: str) -> dict[date, dict[str, str]]:
    """The text of each number of the month's table, by day and column."""
    found = {}
    for day, row in re.findall(
        r'<tr id="day-[-\d]+" data-day="([-\d]+)".*?>(.*?)</tr>', page, re.S
    ):
        found[date.fromisoformat(day)] = {
            column: re.sub("<[^>]+>", "", text)
            for column, text in re.findall(r'<td data-c="(\w+)"[^>]*>(.*?)</td>', row)
        }
    return found


def tiles(page: str) -> dict[str, str]:
    """The text of each number above the table, by column."""
    numbers = page.split('<div id="numbers">')[1].split('<section id="charts"')[0]
    return dict(re.findall(r'<span data-c="(\w+)">([^<]*)</span>', numbers))


def text_of(page: str) -> str:
    """What a reader reads, in one line."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())


def facts(workspace: str, day: date) -> dict[str, Any]:
    counts = dict.fromkeys(("sent", "replied", "interested", "bounced", "unsubscribed"), 0)
    return {"workspace": workspace, "date": day, "as_of": NOW, **counts}


def put_sync(engine: Engine, **changed: Any) -> None:
    row = {
        "run_id": "a run without Dagster",
        "workspace": "harbor",
        "first_date": TODAY,
        "last_date": TODAY,
        "status": "error" if changed.get("error") else "ok",
        "error": None,
        "key_used": "master",
        "api_calls": 2,
        "seconds": 1.5,
        "finished_at": NOW,
        **changed,
    }
    with engine.begin() as connection:
        connection.execute(insert(sync_log).values(row))


def put_reply(engine: Engine, happened_at: datetime, source: str) -> None:
    with engine.begin() as connection:
        connection.execute(
            insert(webhook_events).values(
                instance="main",
                source=source,
                arrived_at=happened_at + timedelta(seconds=2),
                applied_at=happened_at + timedelta(seconds=3),
                idempotency_key=f"{happened_at}",
                workspace="harbor",
                metric="interested",
                happened_at=happened_at,
                business_date=happened_at.date(),
                status="applied",
            )
        )


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """The statements that an engine executes meanwhile."""
    executed: list[str] = []

    def note(_connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        executed.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield executed
    finally:
        event.remove(engine, "before_cursor_execute", note)
