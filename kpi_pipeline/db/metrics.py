"""Computes, publishes and reads the rows of `kpi_projections` and `client_metrics`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from operator import attrgetter
from typing import Any, Literal
from zoneinfo import ZoneInfo

from sqlalchemy import (
    Connection,
    Date,
    String,
    Subquery,
    Table,
    Text,
    bindparam,
    case,
    column,
    func,
    join,
    literal,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.sql.dml import ReturningInsert

from kpi_pipeline.db.events.overlay import read_counted_events
from kpi_pipeline.db.facts import read_facts, read_targets
from kpi_pipeline.db.tables import (
    client_metrics,
    clients,
    kpi_projections,
    raw_bison_stats,
    sending_plans,
)
from kpi_pipeline.db.upsert import upsert
from kpi_pipeline.domain.calendar import fetch_period
from kpi_pipeline.domain.columns import METRIC_COLUMNS
from kpi_pipeline.domain.events.overlay import days_of_events, overlay
from kpi_pipeline.domain.formatting import listed
from kpi_pipeline.domain.metrics import ComputedRow, compute
from kpi_pipeline.errors import KpiError

# Dates of rows, by workspace.
DatesOf = Mapping[str, Collection[date]]
NO_DATES: DatesOf = {}

# What computed a row last.
Source = Literal["sync", "webhook", "import", "recompute"]

_COMPUTED = [field.name for field in fields(ComputedRow)]
_values_of = attrgetter(*_COMPUTED)


@dataclass(frozen=True)
class DayNumbers:
    """The numbers of one client and day that Dagster plots; None where there is none."""

    date: date
    emails_sent: int
    positive_replies: int
    positive_replies_mtd: int | None
    projection_positive_replies_eom: int | None


def recompute_projections(
    connection: Connection, dates: DatesOf, tz: ZoneInfo, *, unfetched: DatesOf = NO_DATES
) -> None:
    """Compute the rows of these clients and dates in `kpi_projections`, from facts and events.

    `unfetched` are the rows among them that may do without facts of their own day.

    Raises:
        KpiError: if facts of any other row are missing; nothing is written then.
    """
    rows = [(workspace, day) for workspace, days in dates.items() for day in days]
    if not rows:
        return
    days = {day for _, day in rows}
    first, last = fetch_period(min(days), max(days))
    stored = read_facts(connection, list(dates), first, last)
    counted = read_counted_events(connection, list(dates), first, last)
    fetched = {(fact.workspace, fact.date) for fact in stored}
    alone = [row for row in rows if row not in fetched]
    if missing := _missing({(it, day) for it, day in alone if day not in unfetched.get(it, ())}):
        raise KpiError(
            f"{missing[0]} has no facts of {missing[1]}. "
            "Materialize raw_bison_stats for these dates, or all three assets together."
        )
    computed = compute(
        overlay(stored, counted),
        read_targets(connection, list(dates)),
        days,
        tz,
        unfetched=days_of_events(alone, counted, tz),
    )
    upsert(
        connection,
        kpi_projections,
        # dataclasses.asdict copies each value, which takes longer than computing it.
        [
            dict(zip(_COMPUTED, _values_of(row), strict=True))
            for row in computed
            if row.metric_date in dates[row.workspace]
        ],
    )


def publish_metrics(connection: Connection, dates: DatesOf, source: Source) -> None:
    """Write the projections of these clients and dates into `client_metrics`.

    Labels and sending plans come with them. All numbers of a row come from one row of
    `kpi_projections`: a page once took its leads from one table and its progress from another, and
    contradicted itself.

    Raises:
        KpiError: if any of the projections are missing; the caller rolls the others back.
    """
    rows = {(workspace, day) for workspace, days in dates.items() for day in days}
    if not rows:
        return
    ordered = sorted(rows)
    chosen = {"workspaces": [it for it, _ in ordered], "days": [day for _, day in ordered]}
    written = connection.execute(_publishing(source), chosen)
    if missing := _missing(rows - {(workspace, day) for workspace, day in written}):
        raise KpiError(
            f"{missing[0]} has no projections of {missing[1]}. "
            "Materialize kpi_projections for these dates, or all three assets together."
        )


# Building the statement takes longer than executing it for one row.
@cache
def _publishing(source: Source) -> ReturningInsert[Any]:
    """The statement that publishes the rows of `workspaces` × `days`, pair by pair."""
    chosen = (
        func.unnest(
            bindparam("workspaces", type_=ARRAY(Text)), bindparam("days", type_=ARRAY(Date))
        )
        .table_valued(column("workspace", Text), column("day", Date))
        .render_derived(name="chosen")
    )
    numbers = [*METRIC_COLUMNS, "monthly_kpi_target", "monthly_sending_target", "as_of"]
    plans = ["emails_scheduled_today", "emails_scheduled_tomorrow"]
    columns = ["workspace", "workspace_name", "display_name", "metric_date", "metric_type"]
    selected = (
        select(
            clients.c.workspace,
            clients.c.name,
            func.coalesce(clients.c.display_name, clients.c.name),
            kpi_projections.c.metric_date,
            literal_column("'mtd'", String),
            *(kpi_projections.c[name] for name in numbers),
            *(sending_plans.c[name] for name in plans),
            literal(source),
        )
        .join_from(
            chosen,
            kpi_projections,
            (kpi_projections.c.workspace == chosen.c.workspace)
            & (kpi_projections.c.metric_date == chosen.c.day),
        )
        .join(clients, clients.c.workspace == kpi_projections.c.workspace)
        .outerjoin(
            sending_plans,
            (sending_plans.c.workspace == kpi_projections.c.workspace)
            & (sending_plans.c.date == kpi_projections.c.metric_date),
        )
    )
    statement = insert(client_metrics).from_select([*columns, *numbers, *plans, "source"], selected)
    primary = {column.name for column in client_metrics.primary_key}
    updated = [name for name in (*columns, *numbers, *plans, "source") if name not in primary]
    return statement.on_conflict_do_update(
        index_elements=list(client_metrics.primary_key),
        set_={name: statement.excluded[name] for name in updated} | {"updated_at": func.now()},
    ).returning(client_metrics.c.workspace, client_metrics.c.metric_date)


def publish_labels(connection: Connection, workspaces: Collection[str]) -> int:
    """Write these clients' names into all their rows of `client_metrics`; return how many changed.

    The caller holds the clients' locks.
    """
    label = func.coalesce(clients.c.display_name, clients.c.name)
    statement = (
        update(client_metrics)
        .where(
            client_metrics.c.workspace == clients.c.workspace,
            client_metrics.c.workspace.in_(workspaces),
            (client_metrics.c.workspace_name != clients.c.name)
            | (client_metrics.c.display_name != label),
        )
        .values(workspace_name=clients.c.name, display_name=label, updated_at=func.now())
    )
    return connection.execute(statement).rowcount


def read_day_numbers(
    connection: Connection, workspace: str, dates: Sequence[date]
) -> dict[date, DayNumbers]:
    """The plotted numbers of those of `dates` that have facts or projections."""
    facts = _of(raw_bison_stats, "date", ["sent", "interested", "as_of"], workspace, dates)
    counted = ["emails_sent_today", "positive_replies_today", "as_of"]
    plotted = ["positive_replies_mtd", "projection_positive_replies_eom"]
    numbers = _of(kpi_projections, "metric_date", [*counted, *plotted], workspace, dates)
    # Facts that were fetched after the projections were computed are newer.
    stale = numbers.c.as_of.is_(None) | (numbers.c.as_of < facts.c.as_of)
    day = func.coalesce(facts.c.day, numbers.c.day)
    statement = select(
        day.label("date"),
        case((stale, facts.c.sent), else_=numbers.c.emails_sent_today).label("emails_sent"),
        case((stale, facts.c.interested), else_=numbers.c.positive_replies_today).label(
            "positive_replies"
        ),
        *(numbers.c[name] for name in plotted),
    ).select_from(join(facts, numbers, facts.c.day == numbers.c.day, full=True))
    rows = connection.execute(statement.order_by(day)).mappings()
    return {row["date"]: DayNumbers(**row) for row in rows}


def _of(
    table: Table, day: str, columns: Sequence[str], workspace: str, dates: Sequence[date]
) -> Subquery:
    """These columns of one client's rows of `dates`, with the date as `day`."""
    return (
        select(table.c[day].label("day"), *(table.c[name] for name in columns))
        .where(table.c.workspace == workspace, table.c[day].in_(dates))
        .subquery()
    )


def _missing(rows: Collection[tuple[str, date]]) -> tuple[str, str] | None:
    """The first client among these rows, and the first three of its dates, as text."""
    if not rows:
        return None
    first = min(workspace for workspace, _ in rows)
    return first, listed([f"{day}" for it, day in sorted(rows) if it == first], 3)


@dataclass(frozen=True)
class MetricRow:
    """The numbers of one client on one date; all of them None for a client without a row."""

    workspace: str
    display_name: str
    positive_replies_today: int | None
    positive_replies_mtd: int | None
    projection_positive_replies_eom: int | None
    monthly_kpi_target: int | None
    mtd_leads_progress: Decimal | None
    projection_replies_progress: Decimal | None
    monthly_sending_target: int | None
    sending_progress: Decimal | None
    projection_sending_progress: Decimal | None
    positive_replies_last_7_days: int | None
    positive_replies_last_14_days: int | None
    positive_replies_last_30_days: int | None
    last_week_vs_week_before_progress: Decimal | None
    positive_replies_last_month: int | None
    emails_sent_today: int | None
    emails_sent_mtd: int | None
    projection_emails_eom: int | None
    emails_sent_last_7_days: int | None
    emails_sent_last_30_days: int | None
    all_replies_mtd: int | None
    bounced_mtd: int | None
    unsubscribed_mtd: int | None
    reply_rate_mtd: Decimal | None
    positive_rate_mtd: Decimal | None
    bounce_rate_mtd: Decimal | None
    emails_scheduled_today: int | None
    emails_scheduled_tomorrow: int | None
    as_of: datetime | None


def read_metrics(
    connection: Connection, metric_date: date, workspaces: list[str] | None = None
) -> list[MetricRow]:
    """The rows of `metric_date`: one for each active client, with or without numbers.

    With `workspaces`, one for each of these clients, active or not. A page once listed only
    clients with rows, and showed a single one after the first webhook of a day.
    """
    labels = {
        "workspace": clients.c.workspace,
        "display_name": func.coalesce(clients.c.display_name, clients.c.name),
    }
    statement = (
        select(
            *(
                labels[field.name].label(field.name)
                if field.name in labels
                else client_metrics.c[field.name]
                for field in fields(MetricRow)
            )
        )
        .outerjoin_from(
            clients,
            client_metrics,
            (client_metrics.c.workspace == clients.c.workspace)
            & (client_metrics.c.metric_date == metric_date)
            & (client_metrics.c.metric_type == "mtd"),
        )
        .order_by(clients.c.workspace)
    )
    if workspaces is None:
        statement = statement.where(clients.c.active)
    else:
        statement = statement.where(clients.c.workspace.in_(workspaces))
    return [MetricRow(**row) for row in connection.execute(statement).mappings()]
