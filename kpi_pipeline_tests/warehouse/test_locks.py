import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from kpi_pipeline.warehouse.engine import open_engine
from kpi_pipeline.warehouse.locks import MasterKeyLock, lock_client

# Read from pg_locks, which is never cached; pg_stat_activity stands still within a transaction.
_OF_THIS_DATABASE = (
    "FROM pg_locks WHERE locktype = 'advisory' "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
WAITING = text(f"SELECT count(*) {_OF_THIS_DATABASE} AND NOT granted")
HOLDERS = text(f"SELECT pid {_OF_THIS_DATABASE} AND granted")


@pytest.fixture
def other_engine(engine: Engine) -> Iterator[Engine]:
    other = open_engine(engine.url)
    yield other
    other.dispose()


def wait_for_a_waiter(connection: Connection) -> None:
    deadline = time.monotonic() + 20
    while connection.scalar(WAITING) == 0:
        assert time.monotonic() < deadline, "nobody waits for the lock"
        time.sleep(0.005)


def test_two_transactions_on_one_client_go_one_after_the_other(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE counter AS SELECT 0 AS value"))

    def read_and_write() -> None:
        with engine.begin() as connection:
            lock_client(connection, "harbor")
            value = connection.scalar(text("SELECT value FROM counter"))
            connection.execute(text("UPDATE counter SET value = :new"), {"new": value + 1})

    with ThreadPoolExecutor(2) as pool:
        with engine.begin() as connection:
            lock_client(connection, "harbor")
            done = [pool.submit(read_and_write) for _ in range(2)]
            wait_for_a_waiter(connection)
            connection.execute(text("UPDATE counter SET value = 10"))
        for future in done:
            future.result(timeout=20)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT value FROM counter")) == 12


def test_one_client_never_waits_for_another(engine: Engine) -> None:
    with engine.begin() as first, engine.begin() as second:
        second.execute(text("SET LOCAL lock_timeout = '2s'"))
        lock_client(first, "harbor")
        lock_client(second, "quay")
        lock_client(first, "harbor")


def test_a_failed_transaction_frees_its_client(engine: Engine) -> None:
    def fail_under_the_lock() -> None:
        with engine.begin() as connection:
            lock_client(connection, "harbor")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_under_the_lock()
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '2s'"))
        lock_client(connection, "harbor")


class Turns:
    """Notes how many hold the lock at once, each for a few steps of the event loop."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.done = 0

    async def take(self, lock: MasterKeyLock, instance: str = "main") -> None:
        async with lock.held(instance):
            self.inside += 1
            self.most = max(self.most, self.inside)
            await asyncio.sleep(0.02)
            self.inside -= 1
            self.done += 1


def test_tasks_of_one_process_never_hold_the_master_key_together(engine: Engine) -> None:
    async def all_at_once() -> Turns:
        turns, lock = Turns(), MasterKeyLock(engine)
        await asyncio.gather(*(turns.take(lock) for _ in range(8)))
        return turns

    turns = asyncio.run(all_at_once())
    assert (turns.most, turns.done) == (1, 8)


def test_processes_never_hold_the_master_key_together(engine: Engine, other_engine: Engine) -> None:
    async def all_at_once() -> Turns:
        turns = Turns()
        locks = [MasterKeyLock(it) for it in (engine, other_engine, other_engine)]
        await asyncio.gather(*(turns.take(lock) for lock in locks for _ in range(2)))
        return turns

    turns = asyncio.run(all_at_once())
    assert (turns.most, turns.done) == (1, 6)


def test_each_instance_has_a_master_key_of_its_own(engine: Engine, other_engine: Engine) -> None:
    async def both_inside() -> None:
        async with asyncio.timeout(20):
            first, second = MasterKeyLock(engine), MasterKeyLock(other_engine)
            async with first.held("main"), second.held("second"):
                pass

    asyncio.run(both_inside())


def test_a_holder_that_fails_frees_the_master_key(engine: Engine, other_engine: Engine) -> None:
    async def fail_and_take_again() -> None:
        with pytest.raises(ZeroDivisionError):
            async with MasterKeyLock(engine).held("main"):
                raise ZeroDivisionError
        await take_in_time(other_engine)

    asyncio.run(fail_and_take_again())


def test_a_cancelled_holder_frees_the_master_key(engine: Engine, other_engine: Engine) -> None:
    async def hold(inside: asyncio.Event) -> None:
        async with MasterKeyLock(engine).held("main"):
            inside.set()
            await asyncio.Event().wait()

    async def cancel_and_take_again() -> None:
        inside = asyncio.Event()
        holder = asyncio.create_task(hold(inside))
        await inside.wait()
        holder.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holder
        await take_in_time(other_engine)

    asyncio.run(cancel_and_take_again())


def test_the_master_key_is_free_when_its_holders_connection_dies(
    engine: Engine, other_engine: Engine
) -> None:
    async def lose_the_lock() -> None:
        async with MasterKeyLock(engine).held("main"):
            with other_engine.begin() as connection:
                [pid] = connection.scalars(HOLDERS).all()
                connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            await take_in_time(other_engine)

    # In the end the holder is told that it no longer held what it believed to hold.
    with pytest.raises(OperationalError):
        asyncio.run(lose_the_lock())
    asyncio.run(take_in_time(engine))


async def take_in_time(engine: Engine) -> None:
    async with asyncio.timeout(20):
        async with MasterKeyLock(engine).held("main"):
            pass
