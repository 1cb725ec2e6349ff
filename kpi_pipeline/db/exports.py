"""The rows of `client_metrics` as exports, notebooks and the data API have them."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import Connection, Row, Select, Text, cast, func, literal_column, select, tuple_
from sqlalchemy.dialects.postgresql import BIGINT

from kpi_pipeline.db.tables import client_metrics, clients

_LEFT_OUT = {"workspace", "workspace_name", "display_name", "metric_date", "metric_type"}
_NUMBERS = [column for column in client_metrics.c if column.name not in _LEFT_OUT]
# The names of the columns, in their order.
EXPORT_COLUMNS = (
    "workspace",
    "display_name",
    "metric_date",
    *(column.name for column in _NUMBERS),
)
_ROWS_AT_ONCE = 2_000


@dataclass(frozen=True)
class RowFilter:
    """Which rows: those of these clients, from `first` to `last`; None does not restrict them.

    `columns` are some of `EXPORT_COLUMNS`, and `after` is the client and the date of the row after
    which the rows begin.
    """

    workspaces: Collection[str] | None = None
    first: date | None = None
    last: date | None = None
    columns: Sequence[str] = EXPORT_COLUMNS
    after: tuple[str, date] | None = None


def exported_rows(of: RowFilter) -> Select[Any]:
    """The statement that selects the rows, ordered by client and date.

    display_name is the client's label of today, on every row.
    """
    label = func.coalesce(clients.c.display_name, clients.c.name).label("display_name")
    columns = [label if name == "display_name" else client_metrics.c[name] for name in of.columns]
    return _chosen(select(*columns), of).order_by(
        client_metrics.c.workspace, client_metrics.c.metric_date
    )


def rows_version(connection: Connection, of: RowFilter) -> str:
    """What changes whenever one of the rows does: their number, and a digest of their versions."""
    # xmin is the transaction that wrote a version of a row, and ctid is its place in the table.
    version = literal_column("client_metrics.xmin::text || client_metrics.ctid::text", Text)
    label = func.coalesce(clients.c.display_name, clients.c.name)
    digest = func.bit_xor(cast(func.hashtextextended(version + label, 0), BIGINT))
    number, found = connection.execute(_chosen(select(func.count(), digest), of)).one()
    return f"{number}-{(found or 0) & (2**64 - 1):x}"


def stream_rows(connection: Connection, of: RowFilter) -> Iterator[Row[Any]]:
    """The rows, without holding all of them in memory."""
    streaming = connection.execution_options(yield_per=_ROWS_AT_ONCE)
    for part in streaming.execute(exported_rows(of)).partitions():
        yield from part


def read_page(
    connection: Connection, of: RowFilter, limit: int
) -> tuple[list[tuple[Any, ...]], bool]:
    """The first `limit` rows, and whether there are more."""
    found = connection.execute(exported_rows(of).limit(limit + 1)).all()
    return [tuple(row) for row in found[:limit]], len(found) > limit


def _chosen(statement: Select[Any], of: RowFilter) -> Select[Any]:
    table = client_metrics.c
    statement = statement.join_from(client_metrics, clients).where(table.metric_type == "mtd")
    if of.workspaces is not None:
        statement = statement.where(table.workspace.in_(of.workspaces))
    if of.first is not None:
        statement = statement.where(table.metric_date >= of.first)
    if of.last is not None:
        statement = statement.where(table.metric_date <= of.last)
    if of.after is not None:
        statement = statement.where(tuple_(table.workspace, table.metric_date) > of.after)
    return statement
