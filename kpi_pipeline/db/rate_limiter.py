"""When a call to an Email Bison instance may be sent: all processes agree on it in PostgreSQL."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, Engine, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError

from kpi_pipeline.db.event_loop import LoopLock, to_the_end
from kpi_pipeline.db.retry import DatabaseAway, retry_on_disconnect
from kpi_pipeline.db.tables import bison_call_slots, bison_pacing

# How often a process looks again while all slots of the instance are taken.
_LOOK_AGAIN_SECONDS = 0.05
_MARGIN = 0.10
_MADE_GOOD = 0.05

# A crash of the server may lose a turn, which costs nothing. Selected with the row that is written,
# as a statement of its own would be a trip of its own; it holds until the transaction's end.
_NO_WAIT_FOR_DISKS = func.set_config("synchronous_commit", "off", True)

_log = logging.getLogger(__name__)

T = TypeVar("T")


class InstancePacing:
    """Paces the calls to one instance, in this process and in all others.

    There are never more than `calls_per_second` calls in any second (0: no limit), and never more
    than `calls_in_flight` under way. A crashed process's slot frees itself `lease_seconds` after it
    was taken, so a call must not take longer than that. `sleep` waits for a turn.

    Nothing is reserved in advance: whoever wakes up first takes the turn, so that a push back binds
    those who wait already. Only the database's clock counts, for the processes' clocks may differ.
    """

    def __init__(
        self,
        engine: Engine,
        instance: str,
        *,
        calls_per_second: float,
        calls_in_flight: int,
        lease_seconds: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._engine = engine
        self._instance = instance
        interval = 1 / calls_per_second if calls_per_second else 0.0
        # Calls are held up on their way by up to a tenth of a second, so turns lie 10 % wider apart
        # than the rate asks: then no second at the other end holds one too many. A taker's lateness
        # of up to 5 % is made good, or late wakings would slow the pace further.
        self._spacing = timedelta(seconds=interval * (1 + _MARGIN))
        self._lateness_made_good = timedelta(seconds=interval * _MADE_GOOD)
        self._calls_in_flight = calls_in_flight
        self._lease = timedelta(seconds=lease_seconds)
        self._sleep = sleep
        self._queue = LoopLock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until a call may be sent, and hold one of the instance's slots for the block.

        Callers of one process are served in the order in which they came.

        Raises:
            DatabaseAway: if the database is out of reach for longer than a restart takes.
        """
        # Named here, so that a slot can be freed even if the taking was cut short.
        slot = uuid.uuid4()
        try:
            # One caller at a time asks the database.
            async with self._queue.here():
                while (wait := await _through_restarts(partial(self._take, slot))) > 0:
                    await self._sleep(wait)
            yield
        finally:
            await to_the_end(partial(self._release, slot))

    async def push_back(self, seconds: float) -> None:
        """Let nobody, in any process, send for that many seconds; a longer push back stays."""
        await _through_restarts(partial(self._push_back, timedelta(seconds=seconds)))

    def _take(self, slot: uuid.UUID) -> float:
        """Take the turn and the slot and return 0, or return the seconds to wait before asking."""
        with self._engine.begin() as connection:
            free_at = self._locked_row(connection)
            # Asked under the lock: earlier answers may be outdated by those who held it before.
            now, taken = connection.execute(
                select(func.clock_timestamp(), func.count()).where(
                    bison_call_slots.c.instance == self._instance,
                    # Taken before the connection broke, if this is the second try.
                    bison_call_slots.c.id != slot,
                    bison_call_slots.c.expires_at > func.clock_timestamp(),
                )
            ).one()
            if free_at > now:
                return float((free_at - now).total_seconds())
            if taken >= self._calls_in_flight:
                return _LOOK_AGAIN_SECONDS
            self._write_turn(connection, slot, free_at, now)
        return 0.0

    def _locked_row(self, connection: Connection) -> datetime:
        """Lock the instance's row, made on first use; return when the next call may be sent."""
        lock = (
            select(bison_pacing.c.next_free_at, _NO_WAIT_FOR_DISKS)
            .where(bison_pacing.c.instance == self._instance)
            .with_for_update()
        )
        found: datetime | None = connection.execute(lock).scalar()
        if found is None:
            row = {"instance": self._instance, "next_free_at": func.clock_timestamp()}
            connection.execute(insert(bison_pacing).values(row).on_conflict_do_nothing())
            found = connection.execute(lock).scalar_one()
        return found

    def _write_turn(
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
        # One statement, so one trip to the database.
        connection.execute(take.add_cte(advance.cte("advance"), clear.cte("clear")))

    def _release(self, slot: uuid.UUID) -> None:
        def free() -> None:
            # One trip to the database, with the commit: it is made after each call.
            with self._engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT").execute(
                    delete(bison_call_slots)
                    .where(bison_call_slots.c.id == slot)
                    .returning(_NO_WAIT_FOR_DISKS)
                )

        try:
            # Slots that a restart left behind would hold up everybody until they expire.
            retry_on_disconnect(free)
        except (SQLAlchemyError, DatabaseAway) as error:
            # The call is over: what came of it must not be lost to this.
            _log.warning(
                "A call slot of instance %s could not be freed (%s); it frees itself within %g s",
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


async def _through_restarts(work: Callable[[], T]) -> T:
    return await to_the_end(partial(retry_on_disconnect, work))
