"""The rate limit of calls to an Email Bison instance, shared by all processes in PostgreSQL."""

import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import anyio
from sqlalchemy import Connection, Engine, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError

from kpi_pipeline.db.coordination.locks import finish_in_thread
from kpi_pipeline.db.server.retry import DatabaseAway, retry_on_disconnect
from kpi_pipeline.db.server.sessions import in_one_statement
from kpi_pipeline.db.tables import bison_call_slots, bison_pacing

# How often a process asks again while all slots of the instance are taken.
_POLL_SECONDS = 0.05
_MARGIN = 0.10
_LATENESS_MADE_GOOD = 0.05

# A crash of the server may lose a slot, which costs nothing. It is selected with the row that is
# written, which saves a round trip; it holds until the end of the transaction.
_ASYNC_COMMIT = func.set_config("synchronous_commit", "off", True)

_log = logging.getLogger(__name__)

T = TypeVar("T")


class InstancePacing:
    """Limits the rate of calls to one instance, in this process and in all others.

    There are never more than `calls_per_second` calls in any second (0: no limit), and never more
    than `calls_in_flight` at once. The slot of a crashed process expires `lease_seconds` after it
    was taken, so a call must not take longer than that. `sleep` waits for a slot.

    Nothing is reserved in advance: the first to wake up takes the slot, so a push back also binds
    those that wait already. Only the database's clock counts, as the processes' clocks may differ.
    """

    def __init__(
        self,
        engine: Engine,
        instance: str,
        *,
        calls_per_second: float,
        calls_in_flight: int,
        lease_seconds: float,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._engine = engine
        self._instance = instance
        interval = 1 / calls_per_second if calls_per_second else 0.0
        # The network delays calls by up to a tenth of a second. So slots are spaced 10 % wider than
        # the rate asks, and no second at the server holds one call too many. Up to 5 % of lateness
        # in taking a slot is made good, or late wake-ups would slow the rate further.
        self._spacing = timedelta(seconds=interval * (1 + _MARGIN))
        self._lateness_made_good = timedelta(seconds=interval * _LATENESS_MADE_GOOD)
        self._calls_in_flight = calls_in_flight
        self._lease = timedelta(seconds=lease_seconds)
        self._sleep = sleep
        self._queue = anyio.Lock()
        # Callers that are not ahead line up here first: at most one of them is in the queue.
        self._others = anyio.Lock()

    @asynccontextmanager
    async def slot(self, *, ahead: bool = False) -> AsyncIterator[None]:
        """Wait until a call may be sent, and hold one of the instance's slots for the block.

        Within a process, callers are served first come, first served. One that is `ahead` waits for
        no more than the two that are next; callers that are ahead take every other slot at most.

        Raises:
            DatabaseAway: if the database is unreachable for longer than a restart takes.
        """
        # Named here: it can be freed even if taking it was cancelled.
        slot = uuid.uuid4()
        try:
            # One caller at a time asks the database.
            async with nullcontext() if ahead else self._others, self._queue:
                while (wait := await _retry_in_thread(partial(self._take, slot))) > 0:
                    await self._sleep(wait)
            yield
        finally:
            await finish_in_thread(partial(self._release, slot))

    async def push_back(self, seconds: float) -> None:
        """Let no process send for that many seconds; a longer push back stays."""
        await _retry_in_thread(partial(self._push_back, timedelta(seconds=seconds)))

    def _take(self, slot: uuid.UUID) -> float:
        """Take a slot and return 0, or return the seconds to wait before asking again."""
        with self._engine.begin() as connection:
            free_at = self._locked_row(connection)
            # Asked under the lock: the holder before may have changed the answer.
            now, taken = connection.execute(
                select(func.clock_timestamp(), func.count()).where(
                    bison_call_slots.c.instance == self._instance,
                    # Ours, if the connection broke just after it was taken.
                    bison_call_slots.c.id != slot,
                    bison_call_slots.c.expires_at > func.clock_timestamp(),
                )
            ).one()
            if free_at > now:
                return float((free_at - now).total_seconds())
            if taken >= self._calls_in_flight:
                return _POLL_SECONDS
            self._write_slot(connection, slot, free_at, now)
        return 0.0

    def _locked_row(self, connection: Connection) -> datetime:
        """Lock the instance's row, made on first use; return when the next call may be sent."""
        lock = (
            select(bison_pacing.c.next_free_at, _ASYNC_COMMIT)
            .where(bison_pacing.c.instance == self._instance)
            .with_for_update()
        )
        found: datetime | None = connection.execute(lock).scalar()
        if found is None:
            row = {"instance": self._instance, "next_free_at": func.clock_timestamp()}
            connection.execute(insert(bison_pacing).values(row).on_conflict_do_nothing())
            found = connection.execute(lock).scalar_one()
        return found

    def _write_slot(
        self, connection: Connection, slot: uuid.UUID, free_at: datetime, now: datetime
    ) -> None:
        next_free_at = max(free_at, now - self._lateness_made_good) + self._spacing
        advance = (
            update(bison_pacing)
            .where(bison_pacing.c.instance == self._instance)
            .values(next_free_at=next_free_at, updated_at=now)
        )
        clear = delete(bison_call_slots).where(
            bison_call_slots.c.instance == self._instance, bison_call_slots.c.expires_at <= now
        )
        take = insert(bison_call_slots).values(
            id=slot, instance=self._instance, expires_at=now + self._lease
        )
        take = take.on_conflict_do_update(
            index_elements=[bison_call_slots.c.id], set_={"expires_at": take.excluded.expires_at}
        )
        # One statement: one round trip.
        connection.execute(take.add_cte(advance.cte("advance"), clear.cte("clear")))

    def _release(self, slot: uuid.UUID) -> None:
        def free() -> None:
            # One round trip, with the commit, as this runs after each call.
            with in_one_statement(self._engine) as connection:
                connection.execute(
                    delete(bison_call_slots)
                    .where(bison_call_slots.c.id == slot)
                    .returning(_ASYNC_COMMIT)
                )

        try:
            # Slots that a restart left behind would delay everybody until they expire.
            retry_on_disconnect(free)
        except (SQLAlchemyError, DatabaseAway) as error:
            # The call is over: its result must not be lost to this error.
            _log.warning(
                "A call slot of instance %s could not be freed (%s); it expires within %g s",
                self._instance,
                type(error).__name__,
                self._lease.total_seconds(),
            )

    def _push_back(self, pause: timedelta) -> None:
        row = {"instance": self._instance, "next_free_at": func.clock_timestamp() + pause}
        statement = insert(bison_pacing).values(row)
        until = func.greatest(bison_pacing.c.next_free_at, statement.excluded.next_free_at)
        with self._engine.begin() as connection:
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=[bison_pacing.c.instance],
                    set_={"next_free_at": until, "updated_at": func.clock_timestamp()},
                )
            )


async def _retry_in_thread(work: Callable[[], T]) -> T:
    return await finish_in_thread(partial(retry_on_disconnect, work))
