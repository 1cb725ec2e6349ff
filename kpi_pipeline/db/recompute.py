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
    SELECT workspace, metric_date FROM kpi_projections
    WHERE workspace = ANY(:workspaces) AND metric_date BETWEEN :since AND :until
    UNION
    SELECT workspace, metric_date FROM client_metrics
    WHERE workspace = ANY(:workspaces) AND metric_date BETWEEN :since AND :until
""").bindparams(bindparam("workspaces", type_=ARRAY(Text)))


def update_rows(
    connection: Connection,
    workspaces: Collection[str],
    *,
    since: date,
    until: date | None = None,
    zone: ZoneInfo,
    source: Source,
    dates: Collection[date] = (),
    of_events: Collection[date] = (),
) -> int:
    """Recompute every stored row of these clients that inputs of the days `since` … `until` affect.

    Without `until` these are all rows from `since` on. Rows that are not stored yet are written for
    `dates`, whose facts must be stored, and for the dates `of_events`, even if nothing was fetched
    for such a date. `zone` is that of Email Bison's days. Returns the number of rows.

    Raises:
        KpiError: if the inputs of a row that is not stored yet are missing, or if the stored dates
            are days of another zone; nothing is written then.
    """
    require_day_zone(connection, zone)
    last = date.max if until is None else last_date_affected(until)
    period = {"workspaces": list(workspaces), "since": since, "until": last}
    rows: defaultdict[str, set[date]] = defaultdict(set)
    unfetched: defaultdict[str, set[date]] = defaultdict(set)
    for workspace, day in connection.execute(_STORED, period):
        rows[workspace].add(day)
        unfetched[workspace].add(day)
    for workspace in workspaces:
        rows[workspace].update(dates, of_events)
        unfetched[workspace].update(of_events)
    recompute_projections(connection, rows, zone, unfetched=unfetched)
    publish_metrics(connection, rows, source)
    return sum(map(len, rows.values()))
