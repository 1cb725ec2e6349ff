"""Set-wise upserts: many rows, one statement."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    TableValuedAlias,
    Text,
    bindparam,
    cast,
    column,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import JSON, Insert, insert


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
    connection.execute(_statement(table, tuple(rows[0]), newer), {"rows": rows_as_json(rows)})


def rows_as_json(rows: Sequence[Mapping[str, object]]) -> str:
    """The parameter `rows` of a statement that reads from `given_rows`.

    A block of rows takes a third of the time that it takes with a parameter for each value.
    """
    return json.dumps(rows, default=str)


def given_rows(table: Table, columns: Sequence[str]) -> TableValuedAlias:
    """The rows of the parameter `rows`, with these columns of `table`."""
    typed = (column(name, table.c[name].type) for name in columns)
    rows = cast(bindparam("rows", type_=Text), JSON)
    return func.json_to_recordset(rows).table_valued(*typed).render_derived("given", True)


# Building one takes as long as executing it.
@cache
def _statement(table: Table, columns: tuple[str, ...], newer: str | None) -> Insert:
    given = given_rows(table, columns)
    return upsert_from(table, columns, select(*(given.c[name] for name in columns)), newer)


def upsert_from(
    table: Table, columns: Sequence[str], selected: Select[Any], newer: str | None = None
) -> Insert:
    """The statement that upserts what `selected` returns for these columns; see `upsert`."""
    statement = insert(table).from_select(list(columns), selected)
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
