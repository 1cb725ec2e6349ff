"""Clients with facts, events, targets and plans, and the rows that follow from them."""

from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, insert

from kpi_pipeline.checks.outcome import Outcome
from kpi_pipeline.checks.rows_match_inputs import rows_match_inputs
from kpi_pipeline.db.recompute import update_rows
from kpi_pipeline.db.tables import (
    client_targets,
    clients,
    raw_bison_stats,
    sending_plans,
    webhook_events,
)
from kpi_pipeline.domain.calendar import day_start, days_between

CHICAGO = ZoneInfo("America/Chicago")
ONE_DAY = timedelta(days=1)
# A Wednesday; clocks went forward on Sunday the 8th.
TODAY = date(2026, 3, 18)
NOW = datetime(2026, 3, 18, 20, 0, tzinfo=UTC)
FIRST = date(2026, 1, 1)


def add_client(connection: Connection, workspace: str, number: int, **changed: Any) -> None:
    row = {
        "workspace": workspace,
        "instance": "main",
        "bison_workspace_id": number,
        "name": workspace.title(),
        "active": True,
        **changed,
    }
    connection.execute(insert(clients), [row])


def add_target(
    connection: Connection, workspace: str, holds_from: date, replies: Any, emails: Any = None
) -> None:
    row = {
        "workspace": workspace,
        "holds_from": holds_from,
        "monthly_kpi_target": replies,
        "monthly_sending_target": emails,
    }
    connection.execute(insert(client_targets), [row])


def add_plan(connection: Connection, workspace: str, day: date, today: int, tomorrow: int) -> None:
    row = {
        "workspace": workspace,
        "date": day,
        "emails_scheduled_today": today,
        "emails_scheduled_tomorrow": tomorrow,
        "as_of": NOW,
    }
    connection.execute(insert(sending_plans), [row])


def add_facts(
    connection: Connection, workspace: str, facts: Mapping[date, Mapping[str, Any]]
) -> None:
    """Facts by date: counts, and perhaps as_of; else they were asked for when the day was over."""
    unread = {"total_opens": 0, "unique_opens": 0}
    rows = [
        {
            "workspace": workspace,
            "date": day,
            "as_of": min(NOW, day_start(day + ONE_DAY, CHICAGO)),
            **unread,
            **counts,
        }
        for day, counts in facts.items()
    ]
    if rows:
        connection.execute(insert(raw_bison_stats), rows)


def add_event(
    connection: Connection,
    workspace: str,
    day: date,
    happened_at: datetime | None,
    metric: str = "interested",
    status: str = "applied",
    arrived_at: datetime = NOW,
) -> None:
    row = {
        "instance": "main",
        "source": "webhook",
        "arrived_at": arrived_at,
        "idempotency_key": uuid4().hex,
        "workspace": workspace,
        "metric": metric,
        "happened_at": happened_at,
        "business_date": day,
        "status": status,
    }
    connection.execute(insert(webhook_events), [row])


def add_rows(
    connection: Connection,
    workspace: str,
    dates: Collection[date],
    of_events: Collection[date] = (),
    zone: ZoneInfo = CHICAGO,
) -> None:
    """The rows of these dates, in both tables, as a sync would write them."""
    update_rows(
        connection,
        [workspace],
        since=date.max,
        zone=zone,
        source="sync",
        dates=dates,
        of_events=of_events,
    )


def agency(connection: Connection) -> None:
    """Acme and Birch with facts since January, and rows of each day since February.

    Acme has two targets, a sending plan, two events that the facts of today and of the 10th do not
    hold, and one that they do.
    """
    for number, workspace in enumerate(("acme", "birch"), start=101):
        add_client(connection, workspace, number, display_name=f"The {workspace}s")
        counts = {
            day: {
                "sent": 100 + day.day,
                "replied": 5 + day.day % 7,
                "interested": 1 + day.day % 4,
                "bounced": day.day % 3,
                "unsubscribed": day.day % 2,
            }
            for day in days_between(FIRST, TODAY)
        }
        add_facts(connection, workspace, counts)
        add_target(connection, workspace, date(2025, 12, 1), 60, 4000)
    add_target(connection, "acme", date(2026, 3, 1), 80, 5000)
    add_plan(connection, "acme", TODAY, 120, 140)
    add_event(connection, "acme", TODAY, NOW + timedelta(minutes=5))
    tenth = date(2026, 3, 10)
    closed = day_start(tenth + ONE_DAY, CHICAGO)
    add_event(connection, "acme", tenth, closed + timedelta(seconds=1))
    add_event(connection, "acme", tenth, closed - timedelta(hours=3))
    for workspace in ("acme", "birch"):
        add_rows(connection, workspace, days_between(date(2026, 2, 1), TODAY))


def checked(connection: Connection, today: date = TODAY, zone: ZoneInfo = CHICAGO) -> Outcome:
    return rows_match_inputs(connection, today, zone)
