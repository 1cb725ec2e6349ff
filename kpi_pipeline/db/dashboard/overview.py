"""Reads what the overview of all clients shows: two statements, prepared as they are text.

The first has a narrow row for each client, for totals, filters and the order; the second has all
numbers, and the counts of 66 days, for the clients of the page that is shown.
"""

from collections.abc import Collection, Mapping
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection

from kpi_pipeline.db.tables import client_metrics
from kpi_pipeline.domain.client_problems import FailingCheck, Problem, problems_by_client

# A sparkline of 60 days, each with the mean of the seven that end on it.
SPARK_DAYS = 66
_ONE_DAY = timedelta(days=1)
# All numbers of a row, and what they are from.
NUMBERS = tuple(
    column.name
    for column in client_metrics.c
    if column.name
    not in ("workspace_name", "metric_date", "metric_type", "workspace", "display_name", "source")
)
RATES = ("reply_rate_mtd", "positive_rate_mtd", "bounce_rate_mtd")


class ClientDay(NamedTuple):
    """A client on one day; the numbers are None where it has no row of the day.

    `happened_at` is when an event changed the row last, unless a sync has replaced it since.
    `replies_yesterday` and `emails_yesterday` are the counts of the day before, and those with
    `_week_before` of the same weekday a week before. `last_date` and `last_as_of` are those of the
    last row before the day, of a client without a row of the day.
    """

    workspace: str
    label: str
    active: bool
    has_row: bool
    positive_replies_mtd: int | None
    projection_positive_replies_eom: int | None
    monthly_kpi_target: int | None
    progress: float | None
    positive_replies_today: int | None
    emails_sent_mtd: int | None
    projection_emails_eom: int | None
    monthly_sending_target: int | None
    emails_sent_today: int | None
    emails_scheduled_today: int | None
    emails_scheduled_tomorrow: int | None
    reply_rate_mtd: float | None
    positive_rate_mtd: float | None
    bounce_rate_mtd: float | None
    as_of: datetime | None
    happened_at: datetime | None
    replies_yesterday: int | None
    replies_week_before: int | None
    emails_yesterday: int | None
    emails_week_before: int | None
    last_date: date | None
    last_as_of: datetime | None
    sorted_by: Any


class ClientNumbers(NamedTuple):
    """All numbers of a client's row, and its positive replies of SPARK_DAYS days, oldest first.

    `values` are those of NUMBERS, and empty for a client without a row of the day.
    """

    values: tuple[Any, ...]
    daily: tuple[int | None, ...]

    @property
    def numbers(self) -> Mapping[str, Any]:
        """The values by name."""
        return dict(zip(NUMBERS, self.values, strict=True)) if self.values else {}


def read_client_days(
    connection: Connection, day: date, today: date, sort: str | None = None
) -> tuple[list[ClientDay], dict[str, list[Problem]]]:
    """Each active client on a day, by workspace, and the open problems by workspace.

    A past day has the clients, too, that have a row of it and left since. `sort` is one of NUMBERS,
    whose value is in `sorted_by`.
    """
    found = connection.exec_driver_sql(
        _client_days(sort),
        {
            "day": day,
            "yesterday": day - _ONE_DAY,
            "week_before": day - 7 * _ONE_DAY,
            "is_past": day < today,
        },
    ).all()
    checks = found[0][-1] if found else None
    return [ClientDay(*row[:-1]) for row in found], problems_by_client(
        [
            FailingCheck(
                it["check_name"],
                it["severity"],
                it["offenders"],
                it["clients"],
                datetime.fromisoformat(it["failing_since"]),
            )
            for it in checks or ()
        ]
    )


def read_numbers(
    connection: Connection, workspaces: Collection[str], day: date
) -> dict[str, ClientNumbers]:
    """All numbers of these clients' rows of a day."""
    if not workspaces:
        return {}
    first = day - (SPARK_DAYS - 1) * _ONE_DAY
    found = connection.exec_driver_sql(
        _CLIENT_NUMBERS, {"workspaces": list(workspaces), "day": day, "first": first}
    )
    numbers = {}
    for workspace, has_row, days, counts, *values in found:
        daily: list[int | None] = [None] * SPARK_DAYS
        for offset, count in zip(days or (), counts or (), strict=True):
            daily[offset] = count
        numbers[workspace] = ClientNumbers(tuple(values) if has_row else (), tuple(daily))
    return numbers


@cache
def _client_days(sort: str | None) -> str:
    if sort is not None and sort not in NUMBERS:
        raise ValueError(f"{sort} is no number of a row.")
    return f"""
SELECT c.workspace, coalesce(c.display_name, c.name), c.active, m.workspace IS NOT NULL,
    m.positive_replies_mtd, m.projection_positive_replies_eom, m.monthly_kpi_target,
    m.mtd_leads_progress::float8, m.positive_replies_today, m.emails_sent_mtd,
    m.projection_emails_eom, m.monthly_sending_target, m.emails_sent_today,
    m.emails_scheduled_today, m.emails_scheduled_tomorrow, m.reply_rate_mtd::float8,
    m.positive_rate_mtd::float8, m.bounce_rate_mtd::float8, m.as_of,
    CASE WHEN m.source = 'webhook' THEN m.updated_at END,
    y.positive_replies_today, w.positive_replies_today, y.emails_sent_today, w.emails_sent_today,
    last.metric_date, last.as_of,
    {f"m.{sort}" if sort else "NULL"},
    -- On the first row alone: the checks are as many as the clients are not.
    CASE WHEN row_number() OVER (ORDER BY c.workspace) = 1 THEN (
        SELECT jsonb_agg(to_jsonb(failing)) FROM (
            SELECT check_name, severity, offenders, clients, failing_since
            FROM check_outcomes WHERE NOT passed
        ) AS failing
    ) END
FROM clients AS c
LEFT JOIN client_metrics AS m ON m.workspace = c.workspace
    AND m.metric_date = %(day)s AND m.metric_type = 'mtd'
LEFT JOIN client_metrics AS y ON y.workspace = c.workspace
    AND y.metric_date = %(yesterday)s AND y.metric_type = 'mtd'
LEFT JOIN client_metrics AS w ON w.workspace = c.workspace
    AND w.metric_date = %(week_before)s AND w.metric_type = 'mtd'
LEFT JOIN LATERAL (
    SELECT metric_date, as_of FROM client_metrics
    WHERE m.workspace IS NULL AND workspace = c.workspace AND metric_date < %(day)s
        AND metric_type = 'mtd'
    ORDER BY metric_date DESC LIMIT 1
) AS last ON true
WHERE c.active OR (%(is_past)s AND m.workspace IS NOT NULL)
ORDER BY c.workspace
"""  # noqa: S608 - the one name in it is a column of ours


_CLIENT_NUMBERS = f"""
SELECT c.workspace, m.workspace IS NOT NULL, d.days, d.counts,
    {", ".join(f"m.{name}" for name in NUMBERS)}
FROM unnest(%(workspaces)s::text[]) AS c (workspace)
LEFT JOIN client_metrics AS m ON m.workspace = c.workspace
    AND m.metric_date = %(day)s AND m.metric_type = 'mtd'
-- By the primary key: by the index of dates, the rows of all other clients are read as well.
LEFT JOIN LATERAL (
    SELECT array_agg(metric_date - %(first)s::date) AS days,
        array_agg(positive_replies_today) AS counts
    FROM client_metrics
    WHERE workspace = c.workspace AND metric_type = 'mtd'
        AND metric_date BETWEEN %(first)s AND %(day)s
) AS d ON true
"""  # noqa: S608 - the names in it are columns of ours
