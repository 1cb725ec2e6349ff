"""What comparisons, the table of a year, and the accuracy of projections read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from sqlalchemy import Connection, func, select, text

from kpi_pipeline.db.dashboard.client import NUMBERS, StoredDay
from kpi_pipeline.db.tables import client_metrics
from kpi_pipeline.domain.accuracy import JudgedRow

_rows = client_metrics.c


@dataclass(frozen=True)
class MonthOfClient:
    """A client's last row of a month; `last_date` is None where the month has none.

    `positive_replies`, `target` and `progress` are the row's positive_replies_mtd,
    monthly_kpi_target and mtd_leads_progress.
    """

    workspace: str
    label: str
    active: bool
    month: date
    last_date: date | None
    positive_replies: int | None
    target: int | None
    progress: Decimal | None


def read_series(
    connection: Connection, workspaces: Sequence[str], first: date, last: date
) -> dict[str, dict[date, StoredDay]]:
    """The rows of these clients from `first` to `last`, by workspace and date."""
    found: dict[str, dict[date, StoredDay]] = {it: {} for it in workspaces}
    statement = select(
        _rows.workspace,
        _rows.metric_date,
        _rows.as_of,
        _rows.source,
        *(_rows[name] for name in NUMBERS),
    ).where(
        _rows.workspace.in_(workspaces),
        _rows.metric_type == "mtd",
        _rows.metric_date.between(first, last),
    )
    for workspace, day, as_of, source, *numbers in connection.execute(statement):
        values = dict(zip(NUMBERS, numbers, strict=True))
        found[workspace][day] = StoredDay(day, values, as_of, source, None)
    return found


# One lookup in the primary key for each client and month; all rows of a year would be hundreds of
# thousands.
_YEAR = text("""
    SELECT c.workspace, coalesce(c.display_name, c.name) AS label, c.active, m.month,
        r.metric_date AS last_date, r.positive_replies_mtd AS positive_replies,
        r.monthly_kpi_target AS target, r.mtd_leads_progress AS progress
    FROM clients c
    CROSS JOIN (
        SELECT generate_series(CAST(:first AS timestamp), :last, '1 month')::date AS month
    ) m
    LEFT JOIN LATERAL (
        SELECT metric_date, positive_replies_mtd, monthly_kpi_target, mtd_leads_progress
        FROM client_metrics
        WHERE workspace = c.workspace AND metric_type = 'mtd'
            AND metric_date >= m.month AND metric_date < m.month + interval '1 month'
            AND metric_date <= :last
        ORDER BY metric_date DESC
        LIMIT 1
    ) r ON true
    ORDER BY lower(coalesce(c.display_name, c.name)), c.workspace, m.month
""")


def read_year(connection: Connection, first: date, last: date) -> list[MonthOfClient]:
    """Every client's last rows of the months from that of `first` to that of `last`."""
    found = connection.execute(_YEAR, {"first": first, "last": last}).mappings()
    return [MonthOfClient(**row) for row in found]


def read_first_date(connection: Connection) -> date | None:
    """The date of the first row of any client."""
    found: date | None = connection.scalar(select(func.min(_rows.metric_date)))
    return found


def read_judged(connection: Connection, dates: Sequence[date]) -> list[JudgedRow]:
    """What is judged of all rows of these dates."""
    statement = select(
        _rows.workspace,
        _rows.metric_date,
        _rows.projection_positive_replies_eom,
        _rows.positive_replies_mtd,
        _rows.projection_emails_eom,
        _rows.emails_sent_mtd,
    ).where(_rows.metric_type == "mtd", _rows.metric_date.in_(dates))
    return [JudgedRow(*row) for row in connection.execute(statement)]
