"""How old the rows of `client_metrics` are, client by client."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import Connection, text


@dataclass(frozen=True)
class ClientFreshness:
    """When the facts were asked for that a client's rows were made of; None without such a row.

    `of_today` and `of_yesterday` are those of the two latest days' rows; `closing` that of the row
    of the day which is to be closed by now; `last_as_of` that of the row of `last_date`, the last
    one that there is. `first_date` is the day of the first row of all.
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
    """One for each active client, whether it has rows or not, by key."""
    days = {
        "today": today,
        "yesterday": today - timedelta(days=1),
        "to_be_closed": to_be_closed,
    }
    return [ClientFreshness(**row) for row in connection.execute(_FRESHNESS, days).mappings()]
