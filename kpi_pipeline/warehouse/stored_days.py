"""Of which days the tables of the three steps hold rows."""

from collections import defaultdict
from collections.abc import Collection
from datetime import date

from sqlalchemy import Connection, select

from kpi_pipeline.warehouse.tables import client_metrics, kpi_projections, raw_bison_stats

_ROWS = {
    raw_bison_stats.name: select(raw_bison_stats.c.workspace, raw_bison_stats.c.date.label("day")),
    kpi_projections.name: select(
        kpi_projections.c.workspace, kpi_projections.c.metric_date.label("day")
    ),
    client_metrics.name: select(
        client_metrics.c.workspace, client_metrics.c.metric_date.label("day")
    ).where(client_metrics.c.metric_type == "mtd"),
}


def stored_days(
    connection: Connection, table: str, workspaces: Collection[str], first: date, last: date
) -> dict[str, set[date]]:
    """The days from `first` to `last` of which `table` holds a row, by workspace; one query.

    `table` is one of raw_bison_stats, kpi_projections and client_metrics.
    """
    rows = _ROWS[table].subquery()
    statement = select(rows.c.workspace, rows.c.day).where(
        rows.c.workspace.in_(workspaces), rows.c.day.between(first, last)
    )
    found: defaultdict[str, set[date]] = defaultdict(set)
    for workspace, day in connection.execute(statement):
        found[workspace].add(day)
    return dict(found)
