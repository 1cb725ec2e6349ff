"""Emails sent against the sending target, and replies against emails: for `checks/pace.py`."""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from sqlalchemy import Connection, text

from kpi_pipeline.domain.calendar import first_of_month, first_of_previous_month


@dataclass(frozen=True)
class Pace:
    """How far a client's month has come, by its rows of a few days.

    `target` is that of the last row. `day` is the last of these days that is known, `sent` are the
    emails of the month up to it, and `progress` is the best `projection_sending_progress` of the
    days, in percent; the three are None if no day is known. A client `is_new` if no email was sent
    in the month before, and no sending target held before this month. `max_shortfall` is its own
    threshold.
    """

    workspace: str
    has_rows: bool
    target: int | None
    day: date | None
    sent: int | None
    progress: Decimal | None
    is_new: bool
    max_shortfall: Decimal | None


_PACES = text("""
    SELECT c.workspace, m.has_rows, m.target, m.day, m.sent, m.progress,
        NOT EXISTS (
            SELECT FROM raw_bison_stats
            WHERE workspace = c.workspace AND date >= :month_before AND date < :month AND sent > 0
        ) AND NOT EXISTS (
            SELECT FROM client_targets
            WHERE workspace = c.workspace AND holds_from < :month
              AND monthly_sending_target IS NOT NULL
        ) AS is_new,
        c.max_sending_shortfall AS max_shortfall
    FROM clients c
    CROSS JOIN LATERAL (
        SELECT count(*) > 0 AS has_rows,
            (array_agg(monthly_sending_target ORDER BY metric_date DESC))[1] AS target,
            max(metric_date) FILTER (WHERE known) AS day,
            (array_agg(emails_sent_mtd ORDER BY metric_date DESC) FILTER (WHERE known))[1] AS sent,
            max(projection_sending_progress) AS progress
        FROM client_metrics
        CROSS JOIN LATERAL (SELECT projection_sending_progress IS NOT NULL AS known) k
        WHERE workspace = c.workspace AND metric_type = 'mtd'
          AND metric_date BETWEEN :since AND :until
    ) m
    WHERE c.active
    ORDER BY c.workspace
""")


def read_paces(connection: Connection, since: date, until: date) -> list[Pace]:
    """One item for each active client, from its rows of `since` … `until`, days of one month."""
    values = {
        "since": since,
        "until": until,
        "month": first_of_month(until),
        "month_before": first_of_previous_month(until),
    }
    return [Pace(**row) for row in connection.execute(_PACES, values).mappings()]


@dataclass(frozen=True)
class WeekOfReplies:
    """A client's emails and replies of seven days, of which `days` have facts.

    `sent_before` are the emails of the 23 days before. `min_rate` is its own threshold.
    """

    workspace: str
    sent: int
    replied: int
    days: int
    sent_before: int
    min_rate: Decimal | None


_WEEKS = text("""
    SELECT c.workspace,
        coalesce(sum(f.sent) FILTER (WHERE f.date > l.day - 7), 0)::bigint AS sent,
        coalesce(sum(f.replied) FILTER (WHERE f.date > l.day - 7), 0)::bigint AS replied,
        count(*) FILTER (WHERE f.date > l.day - 7) AS days,
        coalesce(sum(f.sent) FILTER (WHERE f.date <= l.day - 7), 0)::bigint AS sent_before,
        c.min_reply_rate AS min_rate
    FROM clients c
    CROSS JOIN LATERAL (
        SELECT max(date) AS day FROM raw_bison_stats
        WHERE workspace = c.workspace AND date BETWEEN :since AND :until
    ) l
    LEFT JOIN raw_bison_stats f
        ON f.workspace = c.workspace AND f.date BETWEEN l.day - 29 AND l.day
    WHERE c.active
    GROUP BY c.workspace
    ORDER BY c.workspace
""")


def read_weeks_of_replies(connection: Connection, since: date, until: date) -> list[WeekOfReplies]:
    """One item for each active client: the seven days up to its last day of `since` … `until`."""
    values = {"since": since, "until": until}
    return [WeekOfReplies(**row) for row in connection.execute(_WEEKS, values).mappings()]
