"""DataFrames for people who analyse: the rows of `client_metrics`, and how right projections were.

In a notebook:

    from kpi_pipeline.frames import read_metrics
    rows = read_metrics(first=date(2026, 1, 1), workspaces=["acme"])

No other module imports pandas: it takes a second, and computing or serving a row needs none of it.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
from sqlalchemy import (
    Connection,
    Date,
    DateTime,
    Engine,
    Integer,
    Numeric,
    Row,
    Select,
)
from sqlalchemy.types import TypeEngine

from kpi_pipeline.db.exports import RowFilter, exported_rows
from kpi_pipeline.db.migrate import require_current
from kpi_pipeline.db.registry.clients import Client, all_clients
from kpi_pipeline.db.server.addresses import kpi_address
from kpi_pipeline.db.server.embedded import embedded_server
from kpi_pipeline.db.server.engine import open_engine, require_reachable
from kpi_pipeline.db.server.urls import with_schema
from kpi_pipeline.db.tables import client_metrics
from kpi_pipeline.domain import accuracy
from kpi_pipeline.domain.accuracy import JudgedRow
from kpi_pipeline.domain.outside_names import for_spreadsheet
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import Settings, load_settings

_ROWS_AT_ONCE = 20_000

# What is projected: the column of the projection, and that of the sum up to the metric date.
_PROJECTED = {
    "positive_replies": ("projection_positive_replies_eom", "positive_replies_mtd"),
    "emails": ("projection_emails_eom", "emails_sent_mtd"),
}
# The columns of each, and their types.
_PARTS = {
    "projected_10th": "Int64",
    "error_10th": "float64",
    "projected_20th": "Int64",
    "error_20th": "float64",
    "actual": "Int64",
}


def read_metrics(
    source: Engine | Settings | None = None,
    first: date | None = None,
    last: date | None = None,
    workspaces: Collection[str] | None = None,
) -> pd.DataFrame:
    """Return the rows of `client_metrics` from `first` to `last`, sorted by workspace and date.

    `source` is the database, or settings that name one; None reads the settings as the `kpi`
    command does. Without `first` or `last` the dates are not bounded on that side. Without
    `workspaces` the rows are those of all clients, active or not; a date without a row is absent.

    The columns are those of the table, but for metric_type and workspace_name. display_name is the
    client's label of today, on every row. Counts and targets are Int64 and percentages float64, all
    with missing values where the table holds NULL; metric_date is datetime64[s]; as_of and
    updated_at are datetime64[us, UTC].

    Raises:
        KpiError: for an unknown workspace, or a database that can't be reached or is of another
            version.
    """
    with _connected(source) as connection:
        known = _known_clients(connection, workspaces)
        chosen = RowFilter([client.workspace for client in known], first, last)
        return read_rows(connection, chosen)


def read_rows(connection: Connection, of: RowFilter) -> pd.DataFrame:
    """Return the rows and columns of a filter, in the types of `read_metrics`."""
    return _frame(connection, exported_rows(of))


def read_accuracy(
    source: Engine | Settings | None = None,
    *,
    today: date,
    months: int = 3,
    workspaces: Collection[str] | None = None,
) -> pd.DataFrame:
    """Return the accuracy of projections over the last `months` months before the one of `today`.

    For the columns see `projection_accuracy`; display_name comes beside workspace. Each active
    client has a row for each month, with or without numbers, and an inactive one where it has any.

    Raises:
        KpiError: as for `read_metrics`.
    """
    firsts, dates = accuracy.judged_months(today, months), accuracy.judged_dates(today, months)
    with _connected(source) as connection:
        known = _known_clients(connection, workspaces)
        chosen = exported_rows(RowFilter([client.workspace for client in known]))
        rows = _frame(connection, chosen.where(client_metrics.c.metric_date.in_(dates)))
    expected = [(first, client.workspace) for first in firsts for client in known if client.active]
    found = projection_accuracy(rows, expected)
    labels = {client.workspace: client.label for client in known}
    label = found["workspace"].map(labels).fillna("All clients").astype("str")
    found.insert(2, "display_name", label)
    return found


def projection_accuracy(
    rows: pd.DataFrame, expected: Sequence[tuple[date, str]] = ()
) -> pd.DataFrame:
    """Compare what the rows of the 10th and the 20th projected with what the month brought.

    `rows` is a frame of `read_metrics`; its rows of other days than the 10th, the 20th and the last
    of a month are ignored. `expected` are months (their first days) and workspaces that get a row
    even where `rows` has none.

    There is a row for each month and client, and after them one for all clients of the month, whose
    workspace is missing. It adds up the clients of which all six numbers are known, so that the
    sums compare like with like; `clients` is how many these are.

    For positive_replies and for emails there are the columns …_projected_10th, …_error_10th,
    …_projected_20th, …_error_20th and …_actual (the sum on the month's last day). Errors are
    (projected − actual) ÷ actual in percent, rounded to two places; above 0 the projection was too
    high. They are missing where one of the two is, or nothing was actually counted.
    """
    columns = rows[["workspace", "metric_date", *chain.from_iterable(_PROJECTED.values())]]
    known = columns.astype(object).where(columns.notna(), None)
    found = accuracy.projection_accuracy(
        (
            JudgedRow(workspace, at.date(), *numbers)
            for workspace, at, *numbers in known.itertuples(index=False, name=None)
        ),
        expected,
    )
    columns_of: dict[str, pd.Series[Any]] = {
        "month": pd.Series([it.month for it in found], dtype="datetime64[s]"),
        "workspace": pd.Series([it.workspace for it in found], dtype="str"),
        "clients": pd.Series([it.clients for it in found], dtype="int64"),
    }
    for name in _PROJECTED:
        judged = [it.positive_replies if name == "positive_replies" else it.emails for it in found]
        for part, dtype in _PARTS.items():
            values = [getattr(it, part) for it in judged]
            columns_of[f"{name}_{part}"] = pd.Series(values, dtype=dtype)
    return pd.DataFrame(columns_of)


def write_csv(frame: pd.DataFrame, to: Path | TextIO) -> None:
    """Write the rows as CSV in which no name is a formula to a spreadsheet."""
    texts = frame.select_dtypes(["object", "string"])
    safe = frame.assign(**{str(name): texts[name].map(for_spreadsheet) for name in texts})
    safe.to_csv(to, index=False, lineterminator="\n")


@contextmanager
def _connected(source: Engine | Settings | None) -> Iterator[Connection]:
    with ExitStack() as stack:
        if isinstance(source, Engine):
            engine = source
        else:
            engine = _engine_of(source or load_settings(), stack)
            stack.callback(engine.dispose)
            require_reachable(engine, "KPI_DATABASE_URL")
            require_current(engine)
        yield stack.enter_context(engine.connect())


def _engine_of(settings: Settings, stack: ExitStack) -> Engine:
    if settings.database_url is None:
        embedded = stack.enter_context(embedded_server(settings.state_dir))
        return open_engine(with_schema(embedded, settings.database_schema))
    return open_engine(kpi_address(settings))


def _known_clients(connection: Connection, workspaces: Collection[str] | None) -> list[Client]:
    """The clients with these keys, or all of them."""
    known = all_clients(connection)
    if workspaces is None:
        return known
    if unknown := sorted(set(workspaces) - {client.workspace for client in known}):
        raise KpiError(
            f"There is no client {', '.join(unknown)}. `kpi clients list` shows the workspaces."
        )
    return [client for client in known if client.workspace in workspaces]


def _frame(connection: Connection, statement: Select[Any]) -> pd.DataFrame:
    """The rows of a statement, in the types of pandas that fit its columns, empty or not."""
    types = {column.name: _dtype(column.type) for column in statement.selected_columns}
    # A thousand clients' year as Python objects would take ten times the memory of its frame.
    result = connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(statement)
    parts = [_typed(rows, types) for rows in result.partitions()]
    return pd.concat(parts, ignore_index=True) if parts else _typed([], types)


def _typed(rows: Sequence[Row[Any]], types: Mapping[str, str]) -> pd.DataFrame:
    columns = zip(*rows, strict=True) if rows else [()] * len(types)
    return pd.DataFrame(
        {
            name: pd.Series(list(values), dtype=dtype)
            for (name, dtype), values in zip(types.items(), columns, strict=True)
        }
    )


def _dtype(kind: TypeEngine[Any]) -> str:
    match kind:
        case Integer():
            return "Int64"
        case Numeric():
            return "float64"
        case Date():
            return "datetime64[s]"
        case DateTime():
            return "datetime64[us, UTC]"
        case _:
            return "str"
