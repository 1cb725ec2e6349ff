"""What changes in the tables, as committed transactions change it: LISTEN, or a poll.

Triggers notify `kpi_changes`. A pooler in transaction mode takes LISTEN and delivers nothing, so a
notification of our own must come back first; else the tables are compared each two seconds.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum

import psycopg
from sqlalchemy import URL, Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.db.server.engine import open_unpooled, reason_of
from kpi_pipeline.db.server.retry import is_away, retry_while_disconnected

# How long a notification of our own may take to come back.
TEST_SECONDS = 2.0
POLL_SECONDS = 2.0
# After so long a poll, LISTEN is tried again: the server may only have been slow.
_POLL_FOR_SECONDS = 600.0
# How soon the thread notices that it is to stop.
_WAKE_SECONDS = 0.5
_STOP_SECONDS = 3.0
# Between two connections, so that a server that ends each is not flooded.
_PAUSE_SECONDS = 0.2

# Rows of earlier dates are on no page that is live.
_POLL = text("""
    SELECT 'rows', workspace, count(*), sum(xmin::text::bigint) FROM client_metrics
    WHERE metric_date > (SELECT max(metric_date) FROM client_metrics) - 100 GROUP BY workspace
    UNION ALL SELECT 'clients', '', count(*), sum(xmin::text::bigint) FROM clients
    UNION ALL SELECT 'checks', '', count(*), sum(xmin::text::bigint) FROM check_outcomes
    UNION ALL SELECT 'requests', '', count(*), sum(xmin::text::bigint) FROM action_requests
""")

_log = logging.getLogger(__name__)


class Subject(StrEnum):
    """What a change is about: rows of one client, or a table."""

    ROWS = "rows"
    CLIENTS = "clients"
    CHECKS = "checks"
    REQUESTS = "requests"
    EVERYTHING = "everything"


@dataclass(frozen=True)
class Change:
    """Something changed, of which no more is said than where; `workspace` is set for ROWS alone."""

    subject: Subject
    workspace: str = ""


# After a time in which nobody listened, anything may have changed.
EVERYTHING = Change(Subject.EVERYTHING)


class ChangeFeed:
    """Calls `on_change` for each change, from a thread of its own, from `start` to `stop`.

    A change counts once its transaction has committed. Each new connection begins with EVERYTHING.
    `direct` is the address of the same database without a pooler, if the engine has one.
    """

    def __init__(
        self, engine: Engine, on_change: Callable[[Change], None], direct: URL | None = None
    ) -> None:
        self._engine = engine
        self._on_change = on_change
        self._unpooled = open_unpooled(
            direct or engine.url,
            isolation_level="AUTOCOMMIT",
            application_name="kpi_live",
            # The kernel ends a connection whose server is gone without a word.
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="changes", daemon=True)
        # By subject and workspace: how many rows, and the sum of the transactions that wrote them.
        self._seen: dict[tuple[str, str], tuple[int, int]] | None = None

    def start(self) -> None:
        """Begin, whether or not the database can be reached."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and its connection."""
        self._stopping.set()
        # It may be about to connect to a host that does not answer.
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if not self._listen():
                    self._poll()
            except _StoppedError:
                return
            except Exception:  # noqa: BLE001 - the thread has to go on
                if self._stopping.is_set():
                    return
                _log.exception("Pages get no changes for a moment, as something went wrong.")
                self._stopping.wait(POLL_SECONDS)

    def _listen(self) -> bool:
        """Deliver notifications until the connection ends; False at once if none comes back."""
        try:
            opened = retry_while_disconnected(self._listening, seconds=float("inf"))
        except DBAPIError as error:
            _log.warning("The database does not let pages LISTEN (%s).", reason_of(error))
            return False
        with closing(opened):
            driver = opened.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)  # noqa: S101 - for the type checker
            try:
                if not self._comes_back(driver):
                    _log.warning(
                        "Notifications do not arrive: a pooler is in transaction mode. "
                        "KPI_DATABASE_DIRECT_URL names the database without it."
                    )
                    return False
                self._on_change(EVERYTHING)
                while not self._stopping.is_set():
                    for notification in driver.notifies(timeout=_WAKE_SECONDS):
                        self._deliver(notification.payload)
            except (psycopg.OperationalError, DBAPIError) as error:
                if isinstance(error, DBAPIError) and not is_away(error):
                    raise
                _log.info("The connection that listens ended.")
                opened.invalidate()
        self._stopping.wait(_PAUSE_SECONDS)
        return True

    def _listening(self) -> Connection:
        if self._stopping.is_set():
            raise _StoppedError
        connection = self._unpooled.connect()
        try:
            connection.execute(text("LISTEN kpi_changes"))
        except BaseException:
            connection.close()
            raise
        return connection

    def _comes_back(self, driver: psycopg.Connection) -> bool:
        """Whether a notification of another connection arrives."""
        payload = f"test {uuid.uuid4().hex}"
        with self._engine.begin() as other:
            other.execute(text("SELECT pg_notify('kpi_changes', :payload)"), {"payload": payload})
        return any(it.payload == payload for it in driver.notifies(timeout=TEST_SECONDS))

    def _deliver(self, payload: str) -> None:
        subject, _, workspace = payload.partition(" ")
        if subject in set(Subject):
            self._on_change(Change(Subject(subject), workspace))

    def _poll(self) -> None:
        """Compare the tables, again and again, for a while."""
        _log.warning("Pages learn of changes by a poll each %g s.", POLL_SECONDS)
        deadline = time.monotonic() + _POLL_FOR_SECONDS
        while not self._stopping.wait(POLL_SECONDS) and time.monotonic() < deadline:
            try:
                self._compare()
            except DBAPIError as error:
                if not is_away(error):
                    raise

    def _compare(self) -> None:
        with self._engine.connect() as connection:
            rows = connection.execute(_POLL).all()
        found = {
            (subject, workspace): (count, written) for subject, workspace, count, written in rows
        }
        seen, self._seen = self._seen, found
        if seen is None:
            self._on_change(EVERYTHING)
            return
        for subject, workspace in sorted(seen.keys() | found.keys()):
            if seen.get((subject, workspace)) != found.get((subject, workspace)):
                self._on_change(Change(Subject(subject), workspace))


class _StoppedError(Exception):
    """The feed is to stop."""
