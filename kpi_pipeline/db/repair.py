"""Computes a client's stored rows again, whatever happened to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, text

from kpi_pipeline.db.coordination.locks import lock_client
from kpi_pipeline.db.recompute import update_rows

# Days without a row, in a table with rows of earlier and of later days: somebody deleted it.
_DELETED = text("""
    SELECT f.date
    FROM raw_bison_stats f
    JOIN (
        SELECT min(metric_date) AS first, max(metric_date) AS last
        FROM (
            SELECT metric_date FROM kpi_projections WHERE workspace = :workspace
            UNION ALL
            SELECT metric_date FROM client_metrics WHERE workspace = :workspace
        ) r
    ) stored ON f.date BETWEEN stored.first AND stored.last
    WHERE f.workspace = :workspace AND f.date BETWEEN :since AND :until
      AND NOT EXISTS (
        SELECT FROM client_metrics m
        WHERE m.workspace = f.workspace AND m.metric_date = f.date AND m.metric_type = 'mtd'
      )
""")

# Rows by date, in both tables, as one value each: equal values are equal rows.
_DIGESTS = text("""
    SELECT metric_date, string_agg(digest, ' ' ORDER BY name) AS digest
    FROM (
        SELECT 'kpi_projections' AS name, metric_date,
            md5((to_jsonb(p) - 'updated_at')::text) AS digest
        FROM kpi_projections p WHERE workspace = :workspace
        UNION ALL
        SELECT 'client_metrics', metric_date,
            md5((to_jsonb(m) - 'updated_at' - 'source')::text)
        FROM client_metrics m WHERE workspace = :workspace
    ) r
    GROUP BY metric_date
""")


@dataclass(frozen=True)
class Repaired:
    """How many dates of a client were computed again, and for how many a value changed.

    `changed` includes the rows that were made again after somebody had deleted them.
    """

    dates: int
    changed: int


def repair_rows(
    connection: Connection, workspace: str, since: date | None, until: date | None, zone: ZoneInfo
) -> Repaired:
    """Compute every stored row again in which inputs of the days `since` … `until` show.

    Deleted rows between the client's first and its last are made again where there are facts of
    their day. Takes the client's lock. Dates are days of `zone`; None is no limit.

    Raises:
        KpiError: if the stored dates are days of another zone.
    """
    lock_client(connection, workspace)
    before = _digests(connection, workspace)
    period = {"since": since or date.min, "until": until or date.max}
    deleted = connection.scalars(_DELETED, {"workspace": workspace, **period}).all()
    dates = update_rows(
        connection,
        [workspace],
        since=period["since"],
        until=until,
        zone=zone,
        source="recompute",
        dates=deleted,
    )
    after = _digests(connection, workspace)
    return Repaired(dates, sum(before.get(day) != digest for day, digest in after.items()))


def _digests(connection: Connection, workspace: str) -> Mapping[date, str]:
    rows = connection.execute(_DIGESTS, {"workspace": workspace})
    return {row.metric_date: row.digest for row in rows}
