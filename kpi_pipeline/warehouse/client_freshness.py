"""How old the rows of `client_metrics` are, client by client."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import Connection, and_, func, select

from kpi_pipeline.warehouse.tables import client_metrics, clients


@dataclass(frozen=True)
class ClientFreshness:
    """When the facts were asked for that a client's rows were made of; None without such a row.

    `latest` is that of today's row or the one of the day before, whichever is younger;
    `closing` that of the row of the day which is to be closed by now.
    """

    workspace: str
    latest: datetime | None
    closing: datetime | None


def read_freshness(
    connection: Connection, today: date, to_be_closed: date
) -> list[ClientFreshness]:
    """One for each active client, whether it has rows or not, by key."""
    rows = client_metrics.c
    since = min(today - timedelta(days=1), to_be_closed)
    latest = func.max(rows.as_of).filter(rows.metric_date >= today - timedelta(days=1))
    closing = func.max(rows.as_of).filter(rows.metric_date == to_be_closed)
    statement = (
        select(clients.c.workspace, latest.label("latest"), closing.label("closing"))
        .outerjoin_from(
            clients,
            client_metrics,
            and_(
                rows.workspace == clients.c.workspace,
                rows.metric_type == "mtd",
                rows.metric_date.between(since, today),
            ),
        )
        .where(clients.c.active)
        .group_by(clients.c.workspace)
        .order_by(clients.c.workspace)
    )
    return [ClientFreshness(**row) for row in connection.execute(statement).mappings()]
