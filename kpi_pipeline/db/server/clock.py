"""The database's clock: every instant that is stored comes from it.

A machine whose own clock runs ahead would otherwise store facts of the future, and no later fetch
would replace them.
"""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from kpi_pipeline.db.server.engine import open_unpooled
from kpi_pipeline.domain.clock import utc_now

INTERVAL_SECONDS = 60.0
# A caller may be an event loop, which must not wait for a database that is down.
_CONNECT_SECONDS = 3


def steady_seconds() -> float:
    """Seconds of a clock that nobody sets; where there is one, it goes on during a suspend."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


class DatabaseClock:
    """Returns the current instant by the database's clock, in UTC.

    The database is asked once a minute at most; in between, and while it can't be reached, a steady
    clock of this machine is added to its last answer. Before the first answer, `system` is used.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        steady: Callable[[], float] = steady_seconds,
        system: Callable[[], datetime] = utc_now,
    ) -> None:
        # The caller may hold a connection of the pool while all others are in use.
        self._unpooled = open_unpooled(engine.url, connect_seconds=_CONNECT_SECONDS)
        self._steady = steady
        self._system = system
        self._measuring = threading.Lock()
        self._due = steady()
        self._measured: tuple[datetime, float] | None = None

    def __call__(self) -> datetime:
        """The instant now."""
        # While one thread asks, the others go on with the last answer, if there is one.
        if self._steady() >= self._due and self._measuring.acquire(blocking=not self._measured):
            try:
                if self._steady() >= self._due:
                    self._measure()
            finally:
                self._measuring.release()
        if self._measured is None:
            return self._system()
        instant, at = self._measured
        return instant + timedelta(seconds=self._steady() - at)

    def _measure(self) -> None:
        try:
            with self._unpooled.connect() as connection:
                asked = self._steady()
                instant: datetime = connection.scalar(text("SELECT clock_timestamp()"))
                answered = self._steady()
            self._measured = instant.astimezone(UTC), (asked + answered) / 2
        except SQLAlchemyError:
            # It is asked again after a minute.
            pass
        finally:
            self._due = self._steady() + INTERVAL_SECONDS
