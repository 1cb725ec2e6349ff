"""Copies tables into a dump and out of it, with COPY.

pg_dump would do the first, but it has to be installed in the server's version or a newer one, and
what a newer one wrote an older server can't take. COPY's text format is that of each version, so a
dump goes from any server to any other, also into a schema of another name. The tables are made by
the migrations.

All of it works in one transaction on one connection, so through a pooler, too.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from types import MappingProxyType
from typing import Any, LiteralString, cast

from psycopg import Connection as Psycopg
from psycopg import sql
from sqlalchemy import Connection, text

from kpi_pipeline.db.backup.archive import batched

ALL_ROWS: LiteralString = "true"
LOCK_SECONDS = 30

# Values read the same whatever the server, the database or the role is set to, and no limit of a
# host ends a long copy. A row that a policy hides is an error, and not left out. The waits for a
# lock are short: a table that somebody keeps locked is named.
_SETTINGS = text("""
    SELECT set_config(name, value, true) FROM (VALUES
        ('client_encoding', 'UTF8'),
        ('datestyle', 'ISO, YMD'),
        ('intervalstyle', 'postgres'),
        ('timezone', 'UTC'),
        ('extra_float_digits', '1'),
        ('bytea_output', 'hex'),
        ('row_security', 'off'),
        ('lock_timeout', :lock_timeout),
        ('statement_timeout', '0'),
        ('idle_in_transaction_session_timeout', '0'),
        ('transaction_timeout', '0')
    ) AS wanted (name, value) WHERE name IN (SELECT name FROM pg_settings)
""")
_COLUMNS = text("""
    SELECT relname, attname,
        pg_get_serial_sequence(quote_ident(relname), attname) AS sequence
    FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
    WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND relname = ANY(:names)
        AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
    ORDER BY relname, attnum
""")
_REFERENCES = text("""
    SELECT held.relname AS holder, target.relname AS target
    FROM pg_constraint
    JOIN pg_class AS held ON held.oid = conrelid
    JOIN pg_class AS target ON target.oid = confrelid
    WHERE contype = 'f' AND conrelid <> confrelid
        AND held.relnamespace = current_schema()::regnamespace
""")


@dataclass(frozen=True)
class CopiedTable:
    """A table of a database: its columns, and the sequence of each that has one.

    `where` is the SQL condition of the rows that are copied.
    """

    name: str
    columns: tuple[str, ...]
    sequences: Mapping[str, str]
    where: LiteralString = ALL_ROWS

    def read(self, connection: Connection) -> Iterator[bytes]:
        """Its rows, as lines of COPY's text format, in no order."""
        statement = self._statement("COPY (SELECT {columns} FROM {table} WHERE {where}) TO STDOUT")
        with _driver(connection).cursor() as cursor, cursor.copy(statement) as copy:
            # The server sends a row at a time.
            yield from map(bytes, copy)

    def write(self, connection: Connection, lines: Iterable[bytes]) -> None:
        """Insert rows of its columns; no trigger of ours fires."""
        driver = _driver(connection)
        # They note which rows change, and notify readers of each.
        driver.execute(self._statement("ALTER TABLE {table} DISABLE TRIGGER USER"))
        statement = self._statement("COPY {table} ({columns}) FROM STDIN")
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for batch in batched(lines):
                copy.write(batch)
        driver.execute(self._statement("ALTER TABLE {table} ENABLE TRIGGER USER"))

    def read_sequences(self, connection: Connection) -> dict[str, tuple[int, bool]]:
        """For each column with a sequence, its last number, and whether that was used."""
        found = {}
        for column, sequence in self.sequences.items():
            # The name is quoted already.
            row = connection.execute(text(f"SELECT last_value, is_called FROM {sequence}")).one()  # noqa: S608
            found[column] = (row.last_value, row.is_called)
        return found

    def set_sequences(
        self, connection: Connection, numbers: Mapping[str, tuple[int, bool]]
    ) -> None:
        """Have its sequences go on after these numbers."""
        for column, (last, used) in numbers.items():
            connection.execute(
                text("SELECT setval(CAST(:sequence AS regclass), :last, :used)"),
                {"sequence": self.sequences[column], "last": last, "used": used},
            )

    def has_rows(self, connection: Connection) -> bool:
        """Whether there are rows to copy."""
        statement = self._statement("SELECT FROM {table} WHERE {where} LIMIT 1")
        return _driver(connection).execute(statement).rowcount > 0

    def empty(self, connection: Connection) -> None:
        """Delete the rows that are copied."""
        _driver(connection).execute(self._statement("DELETE FROM {table} WHERE {where}"))

    def analyze(self, connection: Connection) -> None:
        """Have the server measure the rows, for its planner."""
        _driver(connection).execute(self._statement("ANALYZE {table}"))

    def _statement(self, template: LiteralString) -> sql.Composed:
        return sql.SQL(template).format(
            table=sql.Identifier(self.name),
            columns=sql.SQL(", ").join(map(sql.Identifier, self.columns)),
            where=sql.SQL(self.where),
        )


def prepare(connection: Connection) -> None:
    """Set what copies need, for the transaction of this connection."""
    connection.execute(_SETTINGS, {"lock_timeout": f"{LOCK_SECONDS}s"})


def copied_tables(
    connection: Connection,
    names: Collection[str],
    where: Mapping[str, LiteralString] = MappingProxyType({}),
) -> list[CopiedTable]:
    """Those of these tables that the schema has, each after those that it refers to.

    `where` has the conditions of tables of which only some rows are copied. The rows of these get
    other numbers from their sequences, as rows that stay may have theirs.
    """
    columns: dict[str, list[str]] = {}
    sequences: dict[str, dict[str, str]] = {}
    for row in connection.execute(_COLUMNS, {"names": list(names)}):
        if row.sequence is not None and row.relname in where:
            continue
        columns.setdefault(row.relname, []).append(row.attname)
        if row.sequence is not None:
            sequences.setdefault(row.relname, {})[row.attname] = row.sequence
    order = TopologicalSorter({name: set[str]() for name in sorted(columns)})
    for row in connection.execute(_REFERENCES):
        order.add(row.holder, row.target)
    return [
        CopiedTable(name, tuple(columns[name]), sequences.get(name, {}), where.get(name, ALL_ROWS))
        for name in order.static_order()
        if name in columns
    ]


def empty_all(connection: Connection, tables: Sequence[CopiedTable]) -> None:
    """Delete all rows that are copied; nobody else reads or writes the tables until the commit."""
    if whole := [sql.Identifier(it.name) for it in tables if it.where == ALL_ROWS]:
        # One statement: they refer to each other.
        names = sql.SQL(", ").join(whole)
        _driver(connection).execute(sql.SQL("TRUNCATE {}").format(names))
    for it in tables:
        if it.where != ALL_ROWS:
            it.empty(connection)


def _driver(connection: Connection) -> Psycopg[Any]:
    """The connection of psycopg, in the same transaction."""
    return cast(Psycopg[Any], connection.connection.driver_connection)
