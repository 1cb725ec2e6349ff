"""The age of each client's rows in `client_metrics`, and the days that were never closed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, text


@dataclass(frozen=True)
class ClientFreshness:
    """When the facts behind a client's rows were asked for; None where there is no such row.

    `of_today` and `of_yesterday` belong to the rows of these days, and `last_as_of` to the last
    row, that of `last_date`. `first_date` is the date of the first row. `open_dates` are the days
    that have to be closed, and whose facts were asked for before the day was over. `has_closing`
    says whether the last of these days has a row. `future_as_of` is the latest time of facts that
    claim to be younger than now.
    """

    workspace: str
    of_today: datetime | None
    of_yesterday: datetime | None
    open_dates: Sequence[date]
    has_closing: bool
    future_as_of: datetime | None
    first_date: date | None
    last_date: date | None
    last_as_of: datetime | None


_FRESHNESS = text("""
    SELECT c.workspace, r.of_today, r.of_yesterday, r.open_dates, r.has_closing, s.future_as_of,
        f.metric_date AS first_date, l.metric_date AS last_date, l.as_of AS last_as_of
    FROM clients c
    LEFT JOIN LATERAL (
        SELECT max(as_of) FILTER (WHERE metric_date = :today) AS of_today,
            max(as_of) FILTER (WHERE metric_date = :yesterday) AS of_yesterday,
            coalesce(
                array_agg(metric_date ORDER BY metric_date) FILTER (
                    WHERE metric_date <= :to_be_closed
                      AND (as_of AT TIME ZONE CAST(:zone AS text))::date <= metric_date
                ),
                '{}'
            ) AS open_dates,
            coalesce(bool_or(metric_date = :to_be_closed), false) AS has_closing
        FROM client_metrics
        WHERE workspace = c.workspace AND metric_type = 'mtd'
          AND metric_date BETWEEN :since AND :today
    ) r ON true
    LEFT JOIN LATERAL (
        SELECT max(as_of) AS future_as_of FROM raw_bison_stats
        WHERE workspace = c.workspace AND date >= :since AND as_of > :latest
    ) s ON true
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
    connection: Connection,
    *,
    today: date,
    to_be_closed: date,
    since: date,
    latest: datetime,
    zone: ZoneInfo,
) -> list[ClientFreshness]:
    """One item for each active client, with or without rows, sorted by workspace.

    Days are those of `zone`, and those before `since` are not judged. Times after `latest` are in
    the future.
    """
    values = {
        "today": today,
        "yesterday": today - timedelta(days=1),
        "to_be_closed": to_be_closed,
        "since": since,
        "latest": latest,
        "zone": zone.key,
    }
    return [ClientFreshness(**row) for row in connection.execute(_FRESHNESS, values).mappings()]
