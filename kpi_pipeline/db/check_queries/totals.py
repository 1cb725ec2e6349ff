"""Sums of each client's facts over a period."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, text

from kpi_pipeline.domain.columns import FACT_COUNTS

_SUMS = text(f"""
    SELECT c.workspace, count(f.date) AS days,
        {", ".join(f"coalesce(sum(f.{name}), 0)::bigint AS {name}" for name in FACT_COUNTS)}
    FROM clients c
    LEFT JOIN raw_bison_stats f ON f.workspace = c.workspace AND f.date BETWEEN :first AND :last
    WHERE c.active
    GROUP BY c.workspace
    ORDER BY c.workspace
""")  # noqa: S608 - no part of it comes from outside


@dataclass(frozen=True)
class PeriodSums:
    """The sums of a client's facts over a period, and the number of days that have facts."""

    workspace: str
    days: int
    sums: Mapping[str, int]


def read_sums(connection: Connection, first: date, last: date) -> list[PeriodSums]:
    """One item for each active client, sorted by workspace."""
    rows = connection.execute(_SUMS, {"first": first, "last": last}).mappings()
    return [
        PeriodSums(row["workspace"], row["days"], {name: row[name] for name in FACT_COUNTS})
        for row in rows
    ]
