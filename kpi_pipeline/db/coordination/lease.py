"""Leases: one holder at a time, among all processes, without a connection that is held open.

A lease is a row that its holder renews, and not an advisory lock: it works through a pooler in
transaction mode, and expires when its holder hangs or dies.
"""

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from functools import partial

import anyio
import anyio.to_thread
from sqlalchemy import Engine, Table, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError

from kpi_pipeline.db.coordination.locks import finish_in_thread
from kpi_pipeline.db.server.retry import DatabaseAway, retry_on_disconnect
from kpi_pipeline.db.tables import backfill_fetch_leases, bison_master_key_leases
from kpi_pipeline.errors import KpiError

# How often a waiting process asks whether a lease is free.
_POLL_SECONDS = 0.1
_FETCH_POLL_SECONDS = 0.2


class LeaseLost(KpiError):  # noqa: N818 - says what happened
    """The master key may have been used by another process while this one held it."""


class MasterKeyLease:
    """One user of an instance's master key at a time, in this process and in all others.

    Five clients once showed the same 162,179 emails: calls ran side by side on a master key, whose
    workspace is state on the server.

    The lease expires `ttl_seconds` after its last renewal.
    """

    def __init__(self, engine: Engine, *, ttl_seconds: float = 30.0) -> None:
        self._engine = engine
        self._ttl_seconds = ttl_seconds
        self._queues: dict[str, anyio.Lock] = {}

    @asynccontextmanager
    async def held(self, instance: str) -> AsyncIterator[None]:
        """Hold the master key of `instance`; within a process, first come, first served.

        Raises:
            LeaseLost: on leaving the block, if it was not the only holder throughout: what was read
                must not be believed. An error of the block itself takes precedence.
            DatabaseAway: if the database is unreachable for longer than a restart takes.
        """
        lease = _Lease(self._engine, bison_master_key_leases, instance, self._ttl_seconds)
        async with self._queues.setdefault(instance, anyio.Lock()):
            try:
                async with lease.held(_POLL_SECONDS):
                    yield
            except BaseException:
                # Where this fails too, the lease expires; the first error is the one to raise.
                with suppress(SQLAlchemyError):
                    await finish_in_thread(lease.release)
                raise
            await finish_in_thread(partial(self._release_or_raise, lease, instance))

    def _release_or_raise(self, lease: "_Lease", instance: str) -> None:
        try:
            # Asked before the release: a release that is tried twice could not tell.
            kept = retry_on_disconnect(lease.is_held)
        except (SQLAlchemyError, DatabaseAway) as error:
            raise LeaseLost(
                f"The database could not confirm that the master key of instance {instance} was "
                "used by this process alone. What was read with it was thrown away; check that "
                "PostgreSQL is reachable, then run it again."
            ) from error
        if not kept:
            raise LeaseLost(
                f"The master key of instance {instance} was lost to another process while this "
                f"one used it: it was not renewed for {self._ttl_seconds:g} s. What was "
                "read with it was thrown away; run it again."
            )
        # Where this fails, the lease expires, and others wait that long.
        with suppress(SQLAlchemyError, DatabaseAway):
            retry_on_disconnect(lease.release)


@asynccontextmanager
async def backfill_fetch_lock(
    engine: Engine, workspace: str, *, ttl_seconds: float = 30.0
) -> AsyncIterator[None]:
    """Fetch this client's facts for a backfill in one process at a time.

    Two fetches at once do no harm, they only waste calls: a holder that loses its lease goes on.
    Neither waiting nor holding takes a thread or a connection. The lease of a process that died is
    free `ttl_seconds` after its last renewal.
    """
    lease = _Lease(engine, backfill_fetch_leases, workspace, ttl_seconds)
    try:
        async with lease.held(_FETCH_POLL_SECONDS):
            yield
    finally:
        # Where this fails, the lease expires, and others wait that long.
        with suppress(SQLAlchemyError):
            await finish_in_thread(lease.release)


@contextmanager
def exclusive(engine: Engine, name: str, *, ttl_seconds: float = 30.0) -> Iterator[None]:
    """Do the work of the block in one process at a time, all processes that use `name` included.

    A thread renews the lease meanwhile. That of a process that died is free after `ttl_seconds`.
    """
    lease = _Lease(engine, backfill_fetch_leases, name, ttl_seconds)
    with ExitStack() as stack:
        # Before it is taken: a commit whose answer was lost may have taken it.
        stack.callback(_release_quietly, lease)
        while not retry_on_disconnect(lease.take):
            time.sleep(_POLL_SECONDS)
        ended = threading.Event()
        renewing = threading.Thread(target=lease.renew_until, args=(ended,), daemon=True)
        renewing.start()
        stack.callback(renewing.join)
        stack.callback(ended.set)
        yield


def _release_quietly(lease: "_Lease") -> None:
    # Where this fails, the lease expires, and others wait that long.
    with suppress(SQLAlchemyError, DatabaseAway):
        retry_on_disconnect(lease.release)


class _Lease:
    """The lease on `name`, the primary key of a table of leases, for one holder.

    A holder renews it three times as often as it would expire.
    """

    def __init__(self, engine: Engine, table: Table, name: str, ttl_seconds: float) -> None:
        self._engine = engine
        self._table = table
        (self._key,) = table.primary_key.columns
        self._name = name
        self._holder = uuid.uuid4()
        self._ttl = timedelta(seconds=ttl_seconds)

    @asynccontextmanager
    async def held(self, poll_seconds: float) -> AsyncIterator[None]:
        """Wait for the lease, and renew it during the block. The caller releases it."""
        while not await finish_in_thread(partial(retry_on_disconnect, self.take)):
            await anyio.sleep(poll_seconds)
        renewing = asyncio.create_task(self._keep_renewing())
        try:
            yield
        finally:
            renewing.cancel()

    async def _keep_renewing(self) -> None:
        while True:
            await anyio.sleep(self._ttl.total_seconds() / 3)
            # The next try may come in time; whether one did shows when the lease is released.
            with suppress(SQLAlchemyError):
                await anyio.to_thread.run_sync(self._renew)

    def renew_until(self, ended: threading.Event) -> None:
        """Renew it in this thread until `ended` is set."""
        while not ended.wait(self._ttl.total_seconds() / 3):
            with suppress(SQLAlchemyError):
                self._renew()

    def take(self) -> bool:
        """Take it if it is free; whether it is this holder's now."""
        row = {self._key.name: self._name, "holder": self._holder}
        statement = insert(self._table).values(**row, expires_at=func.clock_timestamp() + self._ttl)
        new, table = statement.excluded, self._table.c
        # It is ours if the connection broke just after it was taken, and this is another try.
        free = or_(table.expires_at < func.clock_timestamp(), table.holder == self._holder)
        take = statement.on_conflict_do_update(
            index_elements=[self._key],
            set_={"holder": new.holder, "expires_at": new.expires_at},
            where=free,
        )
        with self._engine.begin() as connection:
            return connection.execute(take.returning(table.holder)).first() is not None

    def _renew(self) -> None:
        # One that expired is still good as long as nobody took it.
        renew = (
            update(self._table)
            .where(self._key == self._name, self._table.c.holder == self._holder)
            .values(expires_at=func.clock_timestamp() + self._ttl)
        )
        with self._engine.begin() as connection:
            connection.execute(renew)

    def is_held(self) -> bool:
        """Whether it is this holder's."""
        found = select(self._table.c.holder).where(self._key == self._name)
        with self._engine.connect() as connection:
            return bool(connection.scalar(found) == self._holder)

    def release(self) -> None:
        """Let others take it; nothing happens if it is not this holder's."""
        ours = delete(self._table).where(
            self._key == self._name, self._table.c.holder == self._holder
        )
        with self._engine.begin() as connection:
            connection.execute(ours)
