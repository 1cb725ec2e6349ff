"""Implausible rows, and volumes of facts, for the rules in `checks/plausible.py`."""

from dataclasses import dataclass
from datetime import date, timedelta

from sqlalchemy import Connection, text

from kpi_pipeline.domain.columns import COUNTS

_NEGATIVE = f"least({', '.join(COUNTS)}) < 0"
_NOT_NESTED = " OR ".join(
    f"{name}_last_{shorter}_days > {name}_last_{longer}_days"
    for name in ("emails_sent", "positive_replies")
    for shorter, longer in ((7, 14), (14, 30))
)

_ANOMALIES = text(f"""
    WITH rows AS (
        SELECT m.workspace, m.metric_date,
            {_NEGATIVE} AS negative, {_NOT_NESTED} AS not_nested,
            emails_sent_mtd AS emails, lag(emails_sent_mtd) OVER days AS emails_before,
            positive_replies_mtd AS replies, lag(positive_replies_mtd) OVER days AS replies_before
        FROM client_metrics m
        JOIN clients c ON c.workspace = m.workspace AND c.active
        WHERE m.metric_type = 'mtd' AND m.metric_date BETWEEN :since AND :until
        WINDOW days AS (
            PARTITION BY m.workspace, date_trunc('month', m.metric_date) ORDER BY m.metric_date
        )
    )
    SELECT workspace, metric_date, coalesce(negative, false) AS negative,
        coalesce(not_nested, false) AS not_nested,
        emails, emails_before, replies, replies_before
    FROM rows
    WHERE negative OR not_nested OR emails < emails_before OR replies < replies_before
    ORDER BY metric_date DESC, workspace
""")  # noqa: S608 - no part of it comes from outside

_VOLUMES = text("""
    SELECT f.workspace,
        sum(sent) AS sent, sum(replied) AS replied, sum(interested) AS interested,
        sum(bounced) AS bounced, sum(unsubscribed) AS unsubscribed, count(*) AS days,
        coalesce(sum(sent) FILTER (WHERE date >= :week), 0) AS sent_of_week,
        coalesce(sum(interested) FILTER (WHERE date >= :week), 0) AS interested_of_week,
        coalesce(sum(bounced) FILTER (WHERE date >= :week), 0) AS bounced_of_week,
        count(*) FILTER (WHERE date >= :week) AS days_of_week
    FROM raw_bison_stats f
    JOIN clients c ON c.workspace = f.workspace AND c.active
    WHERE date BETWEEN :month AND :until
    GROUP BY f.workspace
    ORDER BY f.workspace
""")


@dataclass(frozen=True)
class AnomalousRow:
    """A row of client_metrics that contradicts itself or the row before it in its month.

    It has negative counts, a short window above the longer one, or month sums below those of the
    row before (None where there is none).
    """

    workspace: str
    metric_date: date
    negative: bool
    not_nested: bool
    emails: int | None
    emails_before: int | None
    replies: int | None
    replies_before: int | None


@dataclass(frozen=True)
class Volume:
    """Sums of a client's facts over the last 30 closed days, and over the last 7 of them."""

    workspace: str
    sent: int
    replied: int
    interested: int
    bounced: int
    unsubscribed: int
    days: int
    sent_of_week: int
    interested_of_week: int
    bounced_of_week: int
    days_of_week: int


def read_anomalies(connection: Connection, since: date, until: date) -> list[AnomalousRow]:
    """The implausible rows of active clients, the latest first."""
    period = {"since": since, "until": until}
    return [AnomalousRow(**row) for row in connection.execute(_ANOMALIES, period).mappings()]


def read_volumes(connection: Connection, until: date) -> list[Volume]:
    """One item for each active client with facts in the 30 days up to `until`."""
    days = {
        "until": until,
        "month": until - timedelta(days=29),
        "week": until - timedelta(days=6),
    }
    return [Volume(**row) for row in connection.execute(_VOLUMES, days).mappings()]
