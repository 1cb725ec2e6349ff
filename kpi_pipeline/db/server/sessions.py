"""How a connection is opened: its slot, its settings, and what a pooler between makes of it.

Behind a pooler in transaction mode, as PgBouncer and the like, each transaction may get another
connection to the server. Prepared statements and settings of a session would then be another
client's. So statements are not prepared there, and the settings are made in each transaction.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.pool import ConnectionPoolEntry

from kpi_pipeline.db.server.slots import slots_of_installation
from kpi_pipeline.db.server.urls import session_options

# Marks, in the info of a connection, that a pooler is between; and the slot that it holds.
_POOLED, _SLOT = "kpi_pooled", "kpi_slot"
# Who may not wait for a server that refuses them waits as long for a place of our own.
_SLOT_SECONDS = 2.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 2.0
# "Too many connections" of PostgreSQL, of a role or database with a limit, and of poolers. libpq
# gives no SQLSTATE with an error of a new connection, so the words count; where the server speaks
# another language, the error is one of an unreachable server, which is retried as well.
_REFUSED = (
    "too many clients",
    "too many connections",
    "remaining connection slots",
    "no more connections allowed",
    "max client connections reached",
    "max clients reached",
    "query_wait_timeout",
)

_log = logging.getLogger(__name__)


def is_refused(error: BaseException) -> bool:
    """Whether the server, or a pooler, has as many connections as it allows."""
    words = str(getattr(error, "orig", None) or error).lower()
    return any(it in words for it in _REFUSED)


def is_pooled(connection: Connection) -> bool:
    """Whether a pooler is between, so that nothing of a session outlives a transaction.

    One in session mode counts, too: it can't be told apart.
    """
    return bool(connection.info.get(_POOLED))


@contextmanager
def in_one_statement(engine: Engine) -> Iterator[Connection]:
    """A connection for one statement, which is committed with it and needs no round trip more.

    Behind a pooler it is a transaction: without one, the session's settings would not hold.
    """
    with engine.connect() as connection:
        if is_pooled(connection):
            with connection.begin():
                yield connection
        else:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")


class Sessions:
    """Opens the connections of an engine.

    `settings` hold in each session, beside those of the engine's address, which go before them. A
    server that allows no further connection is asked again for `refused_seconds`.
    """

    def __init__(self, engine: Engine, settings: Mapping[str, str], refused_seconds: float) -> None:
        options = session_options(engine.url)
        settings = {**settings, **options.settings}
        self._words = options.words
        self._refused_seconds = refused_seconds
        # The names and values; whether for this transaction alone.
        self._made = ", ".join(["set_config(%s, %s, {local})"] * len(settings))
        self._values = [it for pair in settings.items() for it in pair]
        event.listen(engine, "do_connect", self._connect)
        event.listen(engine, "close", _closed)
        event.listen(engine, "begin", self._begin)

    def _connect(
        self, dialect: Dialect, record: ConnectionPoolEntry, cargs: Any, cparams: dict[str, Any]
    ) -> Any:
        # A pooler refuses these, or drops them unseen: they are made afterwards.
        cparams.pop("options", None)
        if self._words:
            cparams["options"] = self._words
        slots = slots_of_installation()
        slot = slots.take(max(self._refused_seconds, _SLOT_SECONDS)) if slots is not None else None
        try:
            driver = self._opened(dialect, cargs, cparams)
            try:
                pooled = self._prepare(driver)
            except BaseException:
                driver.close()
                raise
        except BaseException:
            if slot is not None:
                slot.free()
            raise
        record.info.update({_POOLED: pooled, _SLOT: slot})
        return driver

    def _opened(self, dialect: Dialect, cargs: Any, cparams: dict[str, Any]) -> Any:
        """A connection, once the server allows one."""
        pause, deadline = _FIRST_PAUSE, time.monotonic() + self._refused_seconds
        while True:
            try:
                return dialect.connect(*cargs, **cparams)
            except Exception as error:
                if not is_refused(error) or time.monotonic() + pause > deadline:
                    raise
                if pause == _FIRST_PAUSE:
                    _log.warning(
                        "The database allows no further connection (%s); waiting for one.",
                        str(error).strip().splitlines()[-1],
                    )
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _prepare(self, driver: Any) -> bool:
        """Make the settings of a new session; whether a pooler is between, and they are not made.

        A pooler tells another process than the one that answers.
        """
        pid = driver.info.backend_pid
        made = self._made.format(local="false") or "1"
        statement = f"SELECT {made} WHERE pg_backend_pid() = %s"
        driver.autocommit = True
        cursor = driver.cursor()
        cursor.execute(statement, [*self._values, pid])
        pooled = cursor.fetchone() is None
        cursor.close()
        driver.autocommit = False
        # psycopg2, which Dagster's storages use, prepares nothing.
        if pooled and hasattr(driver, "prepare_threshold"):
            driver.prepare_threshold = None
        return pooled

    def _begin(self, connection: Connection) -> None:
        driver: Any = connection.connection.dbapi_connection
        if self._values and is_pooled(connection) and not driver.autocommit:
            made = self._made.format(local="true")
            connection.exec_driver_sql(f"SELECT {made}", tuple(self._values))


def _closed(_: object, record: ConnectionPoolEntry) -> None:
    slot = record.info.pop(_SLOT, None)
    if slot is not None:
        slot.free()
