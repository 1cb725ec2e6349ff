"""Set-wise upserts: many rows, one statement."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, func
from sqlalchemy.dialects.postgresql import Insert, insert


def upsert(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, object]],
    *,
    newer: str | None = None,
) -> None:
    """Insert `rows`, or update the stored ones of the same primary key.

    With `newer`, a column of instants, a stored row that is younger stays as it is: an old answer
    that arrives late changes nothing.
    """
    if not rows:
        return
    connection.execute(_statement(table, tuple(rows[0]), newer), rows)


# Building one takes as long as executing it.
@cache
def _statement(table: Table, columns: tuple[str, ...], newer: str | None) -> Insert:
    statement = insert(table)
    primary = {column.name for column in table.primary_key}
    written = [name for name in columns if name not in primary]
    updates: dict[str, ColumnElement[Any]] = {name: statement.excluded[name] for name in written}
    if "updated_at" in table.c:
        updates["updated_at"] = func.now()
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key),
        set_=updates,
        where=None if newer is None else table.c[newer] <= statement.excluded[newer],
    )
