"""Facts and targets as the data frames that `metrics.compute` takes.

Apart from the rest of the room, because pandas takes a second to import.
"""

from collections.abc import Sequence
from datetime import date
from zoneinfo import ZoneInfo

import pandas as pd
from sqlalchemy import Connection, select

from kpi_pipeline.db.overlay import read_counted_events
from kpi_pipeline.db.tables import client_targets, raw_bison_stats
from kpi_pipeline.domain.columns import FACT_COUNTS
from kpi_pipeline.domain.events.overlay import overlay

_COLUMNS = ["workspace", "date", *FACT_COUNTS, "as_of"]


def read_facts(
    connection: Connection,
    workspaces: Sequence[str],
    first: date,
    last: date,
    *,
    open_day: date | None = None,
    tz: ZoneInfo,
) -> pd.DataFrame:
    """These clients' facts of `first` … `last` with the events that count beyond them.

    For `open_day` and `tz` see `overlay`.
    """
    statement = select(*(raw_bison_stats.c[name] for name in _COLUMNS)).where(
        raw_bison_stats.c.workspace.in_(workspaces),
        raw_bison_stats.c.date.between(first, last),
    )
    facts = [dict(row) for row in connection.execute(statement).mappings()]
    counted = read_counted_events(connection, workspaces, first, last)
    rows = overlay(facts, counted, open_day=open_day, tz=tz)
    return pd.DataFrame(rows, columns=_COLUMNS)


def read_targets(connection: Connection, workspaces: Sequence[str]) -> pd.DataFrame:
    """The history of targets, as `metrics.compute` takes it."""
    statement = select(
        client_targets.c.workspace,
        client_targets.c.holds_from,
        client_targets.c.monthly_kpi_target,
    ).where(client_targets.c.workspace.in_(workspaces))
    rows = connection.execute(statement).all()
    return pd.DataFrame(rows, columns=["workspace", "holds_from", "monthly_kpi_target"])
