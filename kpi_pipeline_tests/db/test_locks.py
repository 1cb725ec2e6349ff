import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, Engine, text

from kpi_pipeline.db.locks import lock_client

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
