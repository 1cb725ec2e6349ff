"""Which clients and dates have a row in `client_metrics`, and which of those have facts."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from itertools import groupby

from sqlalchemy import ColumnElement, Connection, Select, Text, cast, func, select

from kpi_pipeline.db.tables import client_metrics, clients, raw_bison_stats

_rows, _facts = client_metrics.c, raw_bison_stats.c


@dataclass(frozen=True)
class StoredDays:
    """One client's dates with a row, in order of time, and those of them with facts."""

    workspace: str
    dates: list[date]
    with_facts: set[date]


@dataclass(frozen=True)
class RowsOutsideGrid:
    """How many rows are no partition of Dagster's, as they are too early or of inactive clients."""

    too_early: int
    inactive: int


def read_stored_days(connection: Connection, first: date, last: date) -> Iterator[StoredDays]:
    """The stored days from `first` to `last` of each active client that has any."""
    found = connection.execute(
        _in_grid(first, last)
        .add_columns(_rows.workspace, _rows.metric_date, _facts.workspace.is_not(None))
        .order_by(_rows.workspace, _rows.metric_date)
    )
    for workspace, days in groupby(map(tuple, found), key=lambda row: str(row[0])):
        dated = [(day, has_facts) for _, day, has_facts in days]
        with_facts = {day for day, has_facts in dated if has_facts}
        yield StoredDays(workspace, [day for day, _ in dated], with_facts)


def read_stored_sums(
    connection: Connection, first: date, last: date
) -> dict[str, tuple[tuple[int, int], tuple[int, int]]]:
    """By client, how many days from `first` to `last` are stored, and a checksum of which.

    Of the rows, and of the facts of their days; the sums are those of `partition_sum`.
    """
    partition = cast(_rows.metric_date, Text) + "|" + _rows.workspace
    fact = cast(_facts.date, Text) + "|" + _facts.workspace
    found = connection.execute(
        _in_grid(first, last)
        .add_columns(
            _rows.workspace,
            func.count(),
            partition_sum(partition),
            func.count(_facts.workspace),
            partition_sum(fact),
        )
        .group_by(_rows.workspace)
    )
    return {
        workspace: ((rows, int(row_sum or 0)), (facts, int(fact_sum or 0)))
        for workspace, rows, row_sum, facts, fact_sum in found
    }


def partition_sum(partition: ColumnElement[str]) -> ColumnElement[int]:
    """A checksum of partition keys, the same whatever their order."""
    return func.sum(func.hashtext(partition))


def count_outside_grid(connection: Connection, first: date) -> RowsOutsideGrid:
    """How many rows are before `first`, or of inactive clients."""
    early = _rows.metric_date < first
    active = clients.c.active
    found = connection.execute(
        select(
            func.count().filter(active & early),
            func.count().filter(~active),
        ).select_from(client_metrics.join(clients, clients.c.workspace == _rows.workspace))
    ).one()
    return RowsOutsideGrid(*map(int, found))


def _in_grid(first: date, last: date) -> Select[()]:
    """Rows of active clients from `first` to `last`, each with its facts, if there are any."""
    joined = client_metrics.join(clients, clients.c.workspace == _rows.workspace).outerjoin(
        raw_bison_stats,
        (_facts.workspace == _rows.workspace) & (_facts.date == _rows.metric_date),
    )
    return (
        select()
        .select_from(joined)
        .where(clients.c.active, _rows.metric_date.between(first, last), _rows.metric_type == "mtd")
    )
