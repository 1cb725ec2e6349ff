"""Days that a client's table does not hold, though it holds earlier ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, text

# A table with a row for each client and day, and where its day stands.
FACTS = "SELECT workspace, date AS day FROM raw_bison_stats"
METRICS = "SELECT workspace, metric_date AS day FROM client_metrics WHERE metric_type = 'mtd'"


@dataclass(frozen=True)
class Gap:
    """A stretch of days that are not there; `first` is None for a client that has none at all."""

    workspace: str
    first: date | None
    last: date
    days: int


@dataclass(frozen=True)
class Coverage:
    """How many days of how many active clients are there, and what is missing among them."""

    clients: int
    clients_with_days: int
    days: int
    gaps: Sequence[Gap]

    @property
    def missing_days(self) -> int:
        """How many days are missing of clients that have others."""
        return sum(gap.days for gap in self.gaps)


# The last day before the period, where there is one, shows that the client was there already.
_GAPS = """
    WITH held AS MATERIALIZED (
        SELECT c.workspace, d.day,
            EXISTS (
                SELECT 1 FROM ({table}) t WHERE t.workspace = c.workspace AND day > :until
            ) AS goes_on
        FROM clients c
        LEFT JOIN LATERAL (
            (SELECT day FROM ({table}) t
             WHERE t.workspace = c.workspace AND day < :since ORDER BY day DESC LIMIT 1)
            UNION ALL
            SELECT day FROM ({table}) t
            WHERE t.workspace = c.workspace AND day BETWEEN :since AND :until
        ) d ON true
        WHERE c.active
    ), followed AS (
        SELECT workspace, day,
            lead(day, 1, CAST(:until AS date) + 1) OVER days AS next
        FROM held
        WINDOW days AS (PARTITION BY workspace ORDER BY day)
    )
    SELECT NULL AS workspace, NULL AS first, NULL AS last,
        count(day) FILTER (WHERE day >= :since) AS days,
        count(DISTINCT workspace) AS clients,
        count(DISTINCT workspace) FILTER (WHERE day IS NOT NULL OR goes_on) AS clients_with_days
    FROM held
    UNION ALL
    SELECT workspace, greatest(day + 1, CAST(:since AS date)), next - 1,
        next - greatest(day + 1, CAST(:since AS date)), NULL, NULL
    FROM followed
    WHERE day IS NOT NULL AND next > greatest(day + 1, CAST(:since AS date))
    UNION ALL
    SELECT workspace, NULL, CAST(:until AS date), 0, NULL, NULL
    FROM held
    WHERE day IS NULL AND NOT goes_on
    ORDER BY 1 NULLS FIRST, 2
"""


def read_coverage(connection: Connection, table: str, since: date, until: date) -> Coverage:
    """What `table` (FACTS or METRICS) holds of each active client's days `since` … `until`.

    A client's days begin with the first that is there: what was never filled is not missing.
    """
    statement = text(_GAPS.format(table=table))
    totals, *rows = connection.execute(statement, {"since": since, "until": until}).all()
    return Coverage(
        totals.clients,
        totals.clients_with_days,
        totals.days,
        [Gap(row.workspace, row.first, row.last, row.days) for row in rows],
    )
