import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
from sqlalchemy import Connection, Engine, text

from kpi_pipeline.db.coordination.locks import finish_in_thread, lock_client
from kpi_pipeline_tests.db.support import run

# Read from pg_locks, which is never cached; pg_stat_activity stands still within a transaction.
WAITING = text(
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


def wait_for_a_waiter(connection: Connection) -> None:
    deadline = time.monotonic() + 60
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
            future.result(timeout=60)
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


class Work:
    """Work in a thread that ends when it is let go."""

    def __init__(self, error: Exception | None = None) -> None:
        self.started = threading.Event()
        self.let_go = threading.Event()
        self.ended = False
        self._error = error

    def __call__(self) -> str:
        self.started.set()
        assert self.let_go.wait(60)
        self.ended = True
        if self._error:
            raise self._error
        return "done"

    async def until_started(self) -> None:
        while not self.started.is_set():
            await asyncio.sleep(0.001)

    async def steps_later_let_go(self) -> None:
        """Let the work go once the event loop had the time to cut it short."""
        for _ in range(20):
            await asyncio.sleep(0)
        self.let_go.set()


@pytest.mark.parametrize("error", [None, ValueError("lost in favour of the cancellation")])
@pytest.mark.parametrize("times", [1, 2])
def test_a_task_that_is_cancelled_ends_after_its_thread(
    times: int, error: ValueError | None
) -> None:
    async def work() -> bool:
        working = Work(error)
        task = asyncio.create_task(finish_in_thread(working))
        await working.until_started()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        await working.steps_later_let_go()
        with pytest.raises(asyncio.CancelledError):
            await task
        return working.ended

    assert run(work())


def test_a_scope_that_is_cancelled_ends_after_its_thread() -> None:
    async def work() -> tuple[bool, bool]:
        working, went_on = Work(), False
        async with anyio.create_task_group() as group:

            async def call() -> None:
                nonlocal went_on
                await finish_in_thread(working)
                await anyio.sleep(0)
                went_on = True

            group.start_soon(call)
            await working.until_started()
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await working.steps_later_let_go()
        return working.ended, went_on

    assert run(work()) == (True, False)


def test_work_begins_even_in_a_scope_that_is_cancelled_already() -> None:
    async def work() -> bool:
        working = Work()
        working.let_go.set()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await finish_in_thread(working)
        return working.ended

    assert run(work())


def test_the_result_and_the_error_of_a_thread_come_back_as_they_are() -> None:
    def fail() -> str:
        raise KeyError("harbor")

    assert run(finish_in_thread(lambda: "done")) == "done"
    with pytest.raises(KeyError, match="harbor"):
        run(finish_in_thread(fail))
