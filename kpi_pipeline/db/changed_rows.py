"""Rows of client_metrics that changed, until Dagster's page shows them.

A trigger adds each in the transaction that changes it, so none is missed: not one whose transaction
commits late, and not one that somebody changes by hand.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, Date, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import DateTime, Text


@dataclass(frozen=True)
class ChangedRow:
    """A row that changed, and when it did last."""

    workspace: str
    metric_date: date
    changed_at: datetime


_DUE = text("""
    SELECT workspace, metric_date, changed_at FROM changed_rows
    WHERE (checked_at IS NULL OR checked_at <= :checked_before)
      AND NOT (workspace = ANY(:in_runs) AND changed_at > :changed_before)
    ORDER BY metric_date DESC, changed_at LIMIT :limit
""").bindparams(bindparam("in_runs", type_=ARRAY(Text)))

_ARRAYS = (
    bindparam("workspaces", type_=ARRAY(Text)),
    bindparam("days", type_=ARRAY(Date)),
    bindparam("moments", type_=ARRAY(DateTime(timezone=True))),
)
_NOTE = text("""
    UPDATE changed_rows SET checked_at = :now
    FROM unnest(:workspaces, :days, :moments) AS chosen (workspace, day, changed_at)
    WHERE changed_rows.workspace = chosen.workspace AND metric_date = chosen.day
""").bindparams(*_ARRAYS)
# One that changed again meanwhile stays.
_DELETE = text("""
    DELETE FROM changed_rows
    USING unnest(:workspaces, :days, :moments) AS chosen (workspace, day, changed_at)
    WHERE changed_rows.workspace = chosen.workspace AND metric_date = chosen.day
      AND changed_rows.changed_at = chosen.changed_at
""").bindparams(*_ARRAYS)


def read_changed_rows(
    connection: Connection,
    limit: int,
    *,
    checked_before: datetime,
    in_runs: Collection[str],
    changed_before: datetime,
) -> list[ChangedRow]:
    """The rows that are due, at most `limit`: those of the latest date first.

    Not due are those that were checked since `checked_before`, and those of the clients `in_runs`
    that changed since `changed_before`: a run reports its rows when it ends.
    """
    period = {"checked_before": checked_before, "changed_before": changed_before}
    chosen = {"in_runs": list(in_runs), "limit": limit, **period}
    return [ChangedRow(*row) for row in connection.execute(_DUE, chosen)]


def note_checked(connection: Connection, rows: Sequence[ChangedRow], now: datetime) -> None:
    """Note that these rows were checked; they are due again later."""
    if rows:
        connection.execute(_NOTE, {**_arrays(rows), "now": now})


def delete_changed_rows(connection: Connection, rows: Sequence[ChangedRow]) -> None:
    """Delete these rows from the list, except those that changed again since they were read."""
    if rows:
        connection.execute(_DELETE, _arrays(rows))


def _arrays(rows: Sequence[ChangedRow]) -> dict[str, object]:
    return {
        "workspaces": [row.workspace for row in rows],
        "days": [row.metric_date for row in rows],
        "moments": [row.changed_at for row in rows],
    }
