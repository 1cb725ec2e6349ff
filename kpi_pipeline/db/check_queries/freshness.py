"""The age of each client's rows in `client_metrics`."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import Connection, text


@dataclass(frozen=True)
class ClientFreshness:
    """When the facts behind a client's rows were asked for; None where there is no such row.

    `of_today` and `of_yesterday` belong to the rows of these days, `closing` to the row of the day
    that must be closed by now, and `last_as_of` to the last row, that of `last_date`. `first_date`
    is the date of the first row.
    """

    workspace: str
    of_today: datetime | None
    of_yesterday: datetime | None
    closing: datetime | None
    first_date: date | None
    last_date: date | None
    last_as_of: datetime | None


_FRESHNESS = text("""
    SELECT c.workspace, r.of_today, r.of_yesterday, r.closing,
        f.metric_date AS first_date, l.metric_date AS last_date, l.as_of AS last_as_of
    FROM clients c
    LEFT JOIN LATERAL (
        SELECT max(as_of) FILTER (WHERE metric_date = :today) AS of_today,
            max(as_of) FILTER (WHERE metric_date = :yesterday) AS of_yesterday,
            max(as_of) FILTER (WHERE metric_date = :to_be_closed) AS closing
        FROM client_metrics
        WHERE workspace = c.workspace AND metric_type = 'mtd'
          AND metric_date BETWEEN least(CAST(:yesterday AS date), :to_be_closed) AND :today
    ) r ON true
    LEFT JOIN LATERAL (
        SELECT metric_date, as_of FROM client_metrics
        WHERE workspace = c.workspace AND metric_type = 'mtd' AND metric_date <= :today
        ORDER BY metric_date DESC
        LIMIT 1
    ) l ON true
    LEFT JOIN LATERAL (
        SELECT metric_date FROM client_metrics
        WHERE workspace = c.workspace AND metric_type = 'mtd'
        ORDER BY metric_date
        LIMIT 1
    ) f ON true
    WHERE c.active
    ORDER BY c.workspace
""")


def read_freshness(
    connection: Connection, today: date, to_be_closed: date
) -> list[ClientFreshness]:
    """One item for each active client, with or without rows, sorted by workspace."""
    days = {
        "today": today,
        "yesterday": today - timedelta(days=1),
        "to_be_closed": to_be_closed,
    }
    return [ClientFreshness(**row) for row in connection.execute(_FRESHNESS, days).mappings()]
