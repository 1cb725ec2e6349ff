"""The one way in which stored rows follow their inputs.

All code that changes an input of a client calls this in the same transaction, under the client's
lock. An input of day d (a fact, an event) shows in the rows from d to the end of the next month; a
target in the rows from its month on; a label in all rows.
"""

from collections import defaultdict
from collections.abc import Collection
from datetime import date
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.types import ARRAY, Text

from kpi_pipeline.db.day_zone import require_day_zone
from kpi_pipeline.db.metrics import Source, publish_metrics, recompute_projections
from kpi_pipeline.domain.calendar import last_date_affected

_STORED = text("""
    SELECT workspace, metric_date, bool_or(published) AS published
    FROM (
        SELECT workspace, metric_date, false AS published FROM kpi_projections
        WHERE workspace = ANY(:workspaces) AND metric_date BETWEEN :since AND :until
        UNION ALL
        SELECT workspace, metric_date, true FROM client_metrics
        WHERE workspace = ANY(:workspaces) AND metric_date BETWEEN :since AND :until
    ) r
    GROUP BY workspace, metric_date
""").bindparams(bindparam("workspaces", type_=ARRAY(Text)))


def update_rows(
    connection: Connection,
    workspaces: Collection[str],
    *,
    since: date,
    until: date | None = None,
    zone: ZoneInfo,
    source: Source,
    projections: Collection[date] = (),
    metrics: Collection[date] = (),
    of_events: Collection[date] = (),
) -> int:
    """Recompute every stored row of these clients that inputs of the days `since` … `until` affect.

    Without `until` these are all rows from `since` on. Rows that are not stored yet are written for
    the dates `projections` and `metrics`, in these tables, and for the dates `of_events` in both,
    even if nothing was fetched for such a date. `zone` is that of Email Bison's days. Returns the
    number of rows of `kpi_projections`.

    Raises:
        KpiError: if the inputs of a row that is not stored yet are missing, or if the stored dates
            are days of another zone; nothing is written then.
    """
    require_day_zone(connection, zone)
    last = date.max if until is None else last_date_affected(until)
    period = {"workspaces": list(workspaces), "since": since, "until": last}
    computed: defaultdict[str, set[date]] = defaultdict(set)
    published: defaultdict[str, set[date]] = defaultdict(set)
    unfetched: defaultdict[str, set[date]] = defaultdict(set)
    for workspace, day, is_published in connection.execute(_STORED, period):
        computed[workspace].add(day)
        unfetched[workspace].add(day)
        if is_published:
            published[workspace].add(day)
    for workspace in workspaces:
        computed[workspace].update(projections, of_events)
        published[workspace].update(metrics, of_events)
        unfetched[workspace].update(of_events)
    recompute_projections(connection, computed, zone, unfetched=unfetched)
    publish_metrics(connection, published, source)
    return sum(map(len, computed.values()))
