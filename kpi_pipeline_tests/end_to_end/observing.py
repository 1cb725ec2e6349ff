"""Looks at the KPI tables while others write them, and keeps every row that it ever saw."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date

from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.db.engine import open_engine
from kpi_pipeline.db.retry import is_away
from kpi_pipeline_tests.expected import Row

Key = tuple[str, date]
_DAYS = {"raw_bison_stats": "date", "client_metrics": "metric_date"}
_LOOK_EVERY_SECONDS = 0.2


class Observer:
    """What was seen so far.

    `versions` holds each row of a table as often as it was written, `rows` how many rows of
    client_metrics each client had at the last look, and `sizes` every such number at any look.
    `blind_looks` met no database.
    """

    def __init__(self, url: URL) -> None:
        self.versions: Mapping[str, dict[Key, list[Row]]] = {
            table: defaultdict(list) for table in _DAYS
        }
        self.rows: Mapping[str, int] = {}
        self.sizes: set[int] = set()
        self.blind_looks = 0
        self._engine = open_engine(url, pool_size=1)
        self._writers: dict[str, set[str]] = defaultdict(set)
        self._trouble: Exception | None = None

    def require_sight(self) -> None:
        """Raise what it could not bear, if anything."""
        if self._trouble is not None:
            raise self._trouble

    def watch(self, over: threading.Event) -> None:
        """Look all the time, until it is over."""
        try:
            while not over.wait(_LOOK_EVERY_SECONDS):
                self._look()
        except Exception as error:  # noqa: BLE001 - raised in the test's own thread
            self._trouble = error
        finally:
            self._engine.dispose()

    def _look(self) -> None:
        """Look once, at one moment of the whole database."""
        try:
            with self._engine.connect() as connection:
                connection.execution_options(isolation_level="REPEATABLE READ")
                for table in _DAYS:
                    self._note(connection, table)
                counts = text("SELECT workspace, count(*) AS n FROM client_metrics GROUP BY 1")
                self.rows = {row.workspace: row.n for row in connection.execute(counts)}
        except DBAPIError as error:
            if not is_away(error):
                raise
            self.blind_looks += 1
        self.sizes |= set(self.rows.values())

    def _note(self, connection: Connection, table: str) -> None:
        # Each version of a row bears the transaction that wrote it: what the known ones wrote has
        # been seen.
        found = set(connection.scalars(text(f"SELECT DISTINCT xmin::text FROM {table}")))
        new = found - self._writers[table]
        if not new:
            return
        statement = text(f"SELECT * FROM {table} WHERE xmin::text = ANY(:new)")
        for row in connection.execute(statement, {"new": list(new)}).mappings():
            self.versions[table][row["workspace"], row[_DAYS[table]]].append(dict(row))
        self._writers[table] |= new


@contextmanager
def observing(url: URL) -> Iterator[Observer]:
    """Watch the database at `url` while the block lasts."""
    observer, over = Observer(url), threading.Event()
    watcher = threading.Thread(target=observer.watch, args=(over,))
    watcher.start()
    try:
        yield observer
    finally:
        over.set()
        watcher.join()


def wrong(seen: Mapping[Key, Sequence[Row]], expected: Mapping[Key, Row]) -> list[str]:
    """Where any version of any row was not as expected."""
    return [
        f"{key} {column}: {row.get(column)!r} is not {value!r}"
        for key, versions in seen.items()
        for row in versions
        for column, value in expected[key].items()
        if row.get(column) != value
    ]
