"""Publishes the labels of rows, and reads their numbers."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from decimal import Decimal

from sqlalchemy import (
    Connection,
    Subquery,
    Table,
    case,
    func,
    join,
    select,
    update,
)

from kpi_pipeline.db.tables import (
    client_metrics,
    clients,
    kpi_projections,
    raw_bison_stats,
)


@dataclass(frozen=True)
class DayNumbers:
    """The numbers of one client and day that Dagster plots; None where there is none."""

    date: date
    emails_sent: int
    positive_replies: int
    positive_replies_mtd: int | None
    projection_positive_replies_eom: int | None


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
