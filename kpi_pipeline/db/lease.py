"""The lease on an instance's master key: one holder at a time, among all processes."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial

import anyio
import anyio.to_thread
from sqlalchemy import Engine, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError

from kpi_pipeline.db.locks import finish_in_thread
from kpi_pipeline.db.retry import DatabaseAway, retry_on_disconnect
from kpi_pipeline.db.tables import bison_master_key_leases as leases
from kpi_pipeline.errors import KpiError

# How often a waiting process asks whether the master key is free.
_POLL_SECONDS = 0.1


class LeaseLost(KpiError):  # noqa: N818 - says what happened
    """The master key may have been used by another process while this one held it."""


class MasterKeyLease:
    """One user of an instance's master key at a time, in this process and in all others.

    Five clients once showed the same 162,179 emails: calls ran side by side on a master key, whose
    workspace is state on the server.

    A lease and not an advisory lock: it works through connection poolers, and expires when its
    holder hangs, `ttl_seconds` after the last renewal. A holder renews it three times as often.
    """

    def __init__(self, engine: Engine, *, ttl_seconds: float = 30.0) -> None:
        self._engine = engine
        self._ttl = timedelta(seconds=ttl_seconds)
        self._queues: dict[str, anyio.Lock] = {}

    @asynccontextmanager
    async def held(self, instance: str) -> AsyncIterator[None]:
        """Hold the master key of `instance`; within a process, first come, first served.

        Raises:
            LeaseLost: on leaving the block, if it was not the only holder throughout: what was read
                must not be believed. An error of the block itself takes precedence.
            DatabaseAway: if the database is unreachable for longer than a restart takes.
        """
        holder = uuid.uuid4()
        async with self._queues.setdefault(instance, anyio.Lock()):
            try:
                take = partial(self._take, instance, holder)
                while not await finish_in_thread(partial(retry_on_disconnect, take)):
                    await anyio.sleep(_POLL_SECONDS)
                renewing = asyncio.create_task(self._keep_renewing(instance, holder))
                try:
                    yield
                finally:
                    renewing.cancel()
            except BaseException:
                # Where this fails too, the lease expires; the first error is the one to raise.
                with suppress(SQLAlchemyError):
                    await finish_in_thread(partial(self._release, instance, holder))
                raise
            await finish_in_thread(partial(self._release_or_raise, instance, holder))

    async def _keep_renewing(self, instance: str, holder: uuid.UUID) -> None:
        while True:
            await anyio.sleep(self._ttl.total_seconds() / 3)
            # The next try may come in time; whether one did shows when the lease is released.
            with suppress(SQLAlchemyError):
                await anyio.to_thread.run_sync(self._renew, instance, holder)

    def _take(self, instance: str, holder: uuid.UUID) -> bool:
        statement = insert(leases).values(
            instance=instance, holder=holder, expires_at=func.clock_timestamp() + self._ttl
        )
        new = statement.excluded
        # It is ours if the connection broke just after it was taken, and this is another try.
        free = or_(leases.c.expires_at < func.clock_timestamp(), leases.c.holder == holder)
        take = statement.on_conflict_do_update(
            index_elements=[leases.c.instance],
            set_={"holder": new.holder, "expires_at": new.expires_at},
            where=free,
        )
        with self._engine.begin() as connection:
            return connection.execute(take.returning(leases.c.holder)).first() is not None

    def _renew(self, instance: str, holder: uuid.UUID) -> None:
        # One that expired is still good as long as nobody took it.
        renew = (
            update(leases)
            .where(leases.c.instance == instance, leases.c.holder == holder)
            .values(expires_at=func.clock_timestamp() + self._ttl)
        )
        with self._engine.begin() as connection:
            connection.execute(renew)

    def _release(self, instance: str, holder: uuid.UUID) -> None:
        ours = delete(leases).where(leases.c.instance == instance, leases.c.holder == holder)
        with self._engine.begin() as connection:
            connection.execute(ours)

    def _is_held_by(self, instance: str, holder: uuid.UUID) -> bool:
        found = select(leases.c.holder).where(leases.c.instance == instance)
        with self._engine.connect() as connection:
            return bool(connection.scalar(found) == holder)

    def _release_or_raise(self, instance: str, holder: uuid.UUID) -> None:
        try:
            # Asked before the release: a release that is tried twice could not tell.
            kept = retry_on_disconnect(partial(self._is_held_by, instance, holder))
        except (SQLAlchemyError, DatabaseAway) as error:
            raise LeaseLost(
                f"The database could not confirm that the master key of instance {instance} was "
                "used by this process alone. What was read with it was thrown away; check that "
                "PostgreSQL is reachable, then run it again."
            ) from error
        if not kept:
            raise LeaseLost(
                f"The master key of instance {instance} was lost to another process while this "
                f"one used it: it was not renewed for {self._ttl.total_seconds():g} s. What was "
                "read with it was thrown away; run it again."
            )
        # Where this fails, the lease expires, and others wait that long.
        with suppress(SQLAlchemyError, DatabaseAway):
            retry_on_disconnect(partial(self._release, instance, holder))
