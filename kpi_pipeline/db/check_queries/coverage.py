"""Days without a row for a client that has rows of earlier days."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, text

# The tables with a row for each client and day, in one form.
FACTS = "SELECT workspace, date AS day FROM raw_bison_stats"
METRICS = "SELECT workspace, metric_date AS day FROM client_metrics WHERE metric_type = 'mtd'"


@dataclass(frozen=True)
class Gap:
    """A range of missing days; `first` is None for a client without any day."""

    workspace: str
    first: date | None
    last: date
    days: int


@dataclass(frozen=True)
class Coverage:
    """How many days of how many active clients have rows, and the gaps among them."""

    clients: int
    clients_with_days: int
    days: int
    gaps: Sequence[Gap]

    @property
    def missing_days(self) -> int:
        """The number of missing days of the clients that have others."""
        return sum(gap.days for gap in self.gaps)


# A day before the period, if there is one, shows that the client existed when it began.
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
    """The coverage of each active client's days `since` … `until` in `table` (FACTS or METRICS).

    A client's days begin with its first row: earlier days are not missing.
    """
    statement = text(_GAPS.format(table=table))
    totals, *rows = connection.execute(statement, {"since": since, "until": until}).all()
    return Coverage(
        totals.clients,
        totals.clients_with_days,
        totals.days,
        [Gap(row.workspace, row.first, row.last, row.days) for row in rows],
    )
