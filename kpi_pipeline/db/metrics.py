"""Publishes the labels of rows, and reads their numbers."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    Connection,
    Date,
    Row,
    bindparam,
    func,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from kpi_pipeline.db.tables import (
    client_metrics,
    clients,
    raw_bison_stats,
)
from kpi_pipeline.domain.columns import FACT_COUNTS, PARTITION_COLUMNS


@dataclass(frozen=True)
class DayNumbers:
    """One client's day, as Dagster's page shows it.

    `metrics` are the values of `PARTITION_COLUMNS` in its row of `client_metrics`, and `facts` are
    those of `FACT_COUNTS`; `facts` and `facts_as_of` are None for a day that was never fetched.
    """

    workspace: str
    date: date
    client: str
    instance: str
    metrics: Sequence[int | Decimal | None]
    as_of: datetime
    facts: Sequence[int] | None
    facts_as_of: datetime | None


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


_DAYS = (
    select(
        client_metrics.c.workspace,
        client_metrics.c.metric_date,
        client_metrics.c.display_name,
        clients.c.instance,
        client_metrics.c.as_of,
        raw_bison_stats.c.as_of,
        *(client_metrics.c[name] for name in PARTITION_COLUMNS),
        *(raw_bison_stats.c[name] for name in FACT_COUNTS),
    )
    .join_from(client_metrics, clients, clients.c.workspace == client_metrics.c.workspace)
    .outerjoin(
        raw_bison_stats,
        (raw_bison_stats.c.workspace == client_metrics.c.workspace)
        & (raw_bison_stats.c.date == client_metrics.c.metric_date),
    )
    .where(client_metrics.c.metric_type == "mtd")
)
# Where the numbers begin in a row of it, and where the facts do.
_NUMBERS = 6
_FACTS = _NUMBERS + len(PARTITION_COLUMNS)
_DAYS_OF_ONE = _DAYS.where(
    client_metrics.c.workspace == bindparam("workspace"),
    client_metrics.c.metric_date == func.any(bindparam("days", type_=ARRAY(Date))),
).order_by(client_metrics.c.metric_date)
_DAYS_OF_ROWS = _DAYS.where(
    tuple_(client_metrics.c.workspace, client_metrics.c.metric_date).in_(
        bindparam("rows", expanding=True)
    )
)


def read_day_numbers(
    connection: Connection, workspace: str, dates: Sequence[date]
) -> dict[date, DayNumbers]:
    """One client's days among `dates` that have a row, in the order of time."""
    found = connection.execute(_DAYS_OF_ONE, {"workspace": workspace, "days": list(dates)})
    return {it.date: it for it in map(_day_numbers, found)}


def read_numbers_of(
    connection: Connection, rows: Collection[tuple[str, date]]
) -> dict[tuple[str, date], DayNumbers]:
    """The days of these clients and dates that have a row."""
    if not rows:
        return {}
    found = connection.execute(_DAYS_OF_ROWS, {"rows": list(rows)})
    return {(it.workspace, it.date): it for it in map(_day_numbers, found)}


def _day_numbers(row: Row[Any]) -> DayNumbers:
    workspace, day, client, instance, as_of, facts_as_of = row[:_NUMBERS]
    metrics, facts = row[_NUMBERS:_FACTS], None if facts_as_of is None else row[_FACTS:]
    return DayNumbers(workspace, day, client, instance, metrics, as_of, facts, facts_as_of)


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
