"""Stores and reads what the numbers are computed from: daily facts, sending plans, targets."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, func, select

from kpi_pipeline.db.overlay import read_counted_events
from kpi_pipeline.db.tables import (
    client_metrics,
    client_targets,
    kpi_projections,
    raw_bison_stats,
    sending_plans,
)
from kpi_pipeline.db.upsert import upsert
from kpi_pipeline.domain.columns import FACT_COUNTS
from kpi_pipeline.domain.events.overlay import overlay
from kpi_pipeline.domain.metrics import DailyFact, Target


@dataclass(frozen=True)
class SendingPlan:
    """How many emails Bison planned for `date` and for the next day, asked on `date`."""

    date: date
    today: int
    tomorrow: int
    as_of: datetime


def store_facts(
    connection: Connection,
    workspace: str,
    days: Mapping[date, Mapping[str, int]],
    as_of: datetime,
) -> None:
    """Write a client's daily facts, except where the stored row was asked for after `as_of`.

    Each given day is replaced by its new row or left; no day is deleted.
    """
    rows = [
        {"workspace": workspace, "date": day, **counts, "as_of": as_of}
        for day, counts in days.items()
    ]
    upsert(connection, raw_bison_stats, rows, newer="as_of")


def store_plan(connection: Connection, workspace: str, plan: SendingPlan) -> None:
    """Write a client's sending plan of one day."""
    row = {
        "workspace": workspace,
        "date": plan.date,
        "emails_scheduled_today": plan.today,
        "emails_scheduled_tomorrow": plan.tomorrow,
        "as_of": plan.as_of,
    }
    upsert(connection, sending_plans, [row], newer="as_of")


def read_facts(
    connection: Connection,
    workspaces: Collection[str],
    first: date,
    last: date,
    *,
    open_day: date | None = None,
    tz: ZoneInfo,
) -> list[DailyFact]:
    """The facts of these clients' days `first` … `last`, with the events counted beyond them.

    For `open_day` and `tz` see `overlay`.
    """
    columns = [raw_bison_stats.c[name] for name in ("workspace", "date", *FACT_COUNTS, "as_of")]
    statement = select(*columns).where(
        raw_bison_stats.c.workspace.in_(workspaces),
        raw_bison_stats.c.date.between(first, last),
    )
    facts = [DailyFact(**row) for row in connection.execute(statement).mappings()]
    counted = read_counted_events(connection, workspaces, first, last)
    return overlay(facts, counted, open_day=open_day, tz=tz)


def read_targets(connection: Connection, workspaces: Collection[str]) -> list[Target]:
    """The history of these clients' targets."""
    statement = select(
        client_targets.c.workspace,
        client_targets.c.holds_from,
        client_targets.c.monthly_kpi_target,
    ).where(client_targets.c.workspace.in_(workspaces))
    return [Target(*row) for row in connection.execute(statement)]


def are_known_since(
    connection: Connection, workspace: str, first: date, last: date, moment: datetime
) -> bool:
    """Whether each of the days `first` … `last` has facts asked for at `moment` or later."""
    statement = select(func.count()).where(
        raw_bison_stats.c.workspace == workspace,
        raw_bison_stats.c.date.between(first, last),
        raw_bison_stats.c.as_of >= moment,
    )
    return connection.scalar(statement) == (last - first).days + 1


_ROWS = {
    raw_bison_stats.name: select(raw_bison_stats.c.workspace, raw_bison_stats.c.date.label("day")),
    kpi_projections.name: select(
        kpi_projections.c.workspace, kpi_projections.c.metric_date.label("day")
    ),
    client_metrics.name: select(
        client_metrics.c.workspace, client_metrics.c.metric_date.label("day")
    ).where(client_metrics.c.metric_type == "mtd"),
}


def stored_days(
    connection: Connection, table: str, workspaces: Collection[str], first: date, last: date
) -> dict[str, set[date]]:
    """The days from `first` to `last` that have a row in `table`, by workspace; one query.

    `table` is one of raw_bison_stats, kpi_projections and client_metrics.
    """
    rows = _ROWS[table].subquery()
    statement = select(rows.c.workspace, rows.c.day).where(
        rows.c.workspace.in_(workspaces), rows.c.day.between(first, last)
    )
    found: defaultdict[str, set[date]] = defaultdict(set)
    for workspace, day in connection.execute(statement):
        found[workspace].add(day)
    return dict(found)
