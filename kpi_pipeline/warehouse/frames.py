"""Facts and targets as the data frames that `metrics.compute` takes.

Apart from the rest of the room, because pandas takes a second to import.
"""

from collections.abc import Sequence
from datetime import date

import pandas as pd
from sqlalchemy import Connection, select

from kpi_pipeline.columns import FACT_COUNTS
from kpi_pipeline.warehouse.tables import client_targets, raw_bison_stats


def read_facts(
    connection: Connection, workspaces: Sequence[str], first: date, last: date
) -> pd.DataFrame:
    """The facts of `first` … `last`, as `metrics.compute` takes them."""
    columns = ["workspace", "date", *FACT_COUNTS, "as_of"]
    statement = select(*(raw_bison_stats.c[name] for name in columns)).where(
        raw_bison_stats.c.workspace.in_(workspaces),
        raw_bison_stats.c.date.between(first, last),
    )
    return pd.DataFrame(connection.execute(statement).all(), columns=columns)


def read_targets(connection: Connection, workspaces: Sequence[str]) -> pd.DataFrame:
    """The history of targets, as `metrics.compute` takes it."""
    statement = select(
        client_targets.c.workspace,
        client_targets.c.holds_from,
        client_targets.c.monthly_kpi_target,
    ).where(client_targets.c.workspace.in_(workspaces))
    rows = connection.execute(statement).all()
    return pd.DataFrame(rows, columns=["workspace", "holds_from", "monthly_kpi_target"])
