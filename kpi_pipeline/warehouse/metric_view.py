"""Reading `client_metrics` as a page or a command shows it."""

from dataclasses import dataclass, fields
from datetime import date, datetime
from decimal import Decimal

from sqlalchemy import Connection, func, select

from kpi_pipeline.warehouse.tables import client_metrics, clients


@dataclass(frozen=True)
class MetricRow:
    """The numbers of one client on one date. A client without a row has None throughout."""

    workspace: str
    display_name: str
    positive_replies_today: int | None
    positive_replies_mtd: int | None
    projection_positive_replies_eom: int | None
    monthly_kpi_target: int | None
    mtd_leads_progress: Decimal | None
    projection_replies_progress: Decimal | None
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
    emails_scheduled_today: int | None
    emails_scheduled_tomorrow: int | None
    as_of: datetime | None


def read_metrics(
    connection: Connection, metric_date: date, workspaces: list[str] | None = None
) -> list[MetricRow]:
    """The rows of `metric_date`: one for each active client, whether it has numbers or not.

    One row made by a webhook once made every other client vanish from a page.
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
