"""A pool that gives connections back to the server when nobody needs them."""

import os
import threading
import time
import weakref
from contextlib import suppress
from typing import Any

from sqlalchemy.pool import ConnectionPoolEntry, QueuePool
from sqlalchemy.util.queue import Empty

from kpi_pipeline.db.server.slots import slots_of_installation

# Longer than the pauses of what works all the time, which would connect again and again.
IDLE_SECONDS = 10.0
_PAUSE_SECONDS = 1.0
_SINCE = "kpi_idle_since"


class ReturningPool(QueuePool):
    """Closes a connection that was not used for `IDLE_SECONDS`, or that another process waits for.

    An open connection that is idle takes a place at the server that others may be refused for.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._disposed = False
        _closer.watch(self)

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        slots = slots_of_installation()
        if self._disposed or (slots is not None and slots.are_wanted()):
            # Its place in the pool stays; it is opened again when it is needed.
            record.close()
        else:
            record.info[_SINCE] = time.monotonic()
            _closer.wake()
        super()._do_return_conn(record)

    def dispose(self) -> None:
        """Close all connections; those in use when they are given back."""
        self._disposed = True
        super().dispose()

    def close_idle(self) -> bool:
        """Close what is no longer needed; whether an idle connection is left."""
        slots = slots_of_installation()
        longest = 0.0 if slots is not None and slots.are_wanted() else IDLE_SECONDS
        records, left = [], False
        with suppress(Empty):
            while True:
                records.append(self._pool.get(False))
        # As they lay there: the last one is used first.
        for record in reversed(records):
            since = record.info.get(_SINCE)
            if record.dbapi_connection is not None and since is not None:
                if time.monotonic() - since >= longest:
                    record.close()
                else:
                    left = True
            super()._do_return_conn(record)
        return left


class _Closer:
    """The thread of a process that closes idle connections of all its pools."""

    def __init__(self) -> None:
        self._pools: weakref.WeakSet[ReturningPool] = weakref.WeakSet()
        self._work = threading.Event()
        self._starting = threading.Lock()
        self._process = 0

    def watch(self, pool: ReturningPool) -> None:
        """Close idle connections of this pool, too."""
        self._pools.add(pool)

    def wake(self) -> None:
        """There is an idle connection."""
        if self._process != os.getpid():
            # The first one, or that of the process that this one was forked from.
            with self._starting:
                if self._process != os.getpid():
                    self._process = os.getpid()
                    threading.Thread(target=self._run, name="idle connections", daemon=True).start()
        self._work.set()

    def _run(self) -> None:
        while True:
            self._work.wait()
            self._work.clear()
            time.sleep(_PAUSE_SECONDS)
            if sum(pool.close_idle() for pool in list(self._pools)):
                self._work.set()


_closer = _Closer()
