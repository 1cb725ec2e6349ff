"""A server that is stopped and started in the middle of a transaction."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError, OperationalError

from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.db.server.retry import DatabaseAway, retry_on_disconnect
from kpi_pipeline_tests.cli.running import wait_until
from kpi_pipeline_tests.restartable import RestartableServer, restartable_server

pytestmark = pytest.mark.server

_CREATE = "CREATE TABLE IF NOT EXISTS visits (guest text PRIMARY KEY)"


@pytest.fixture(scope="module")
def server() -> Iterator[RestartableServer]:
    with restartable_server() as server:
        yield server


@pytest.fixture
def guests(server: RestartableServer) -> Iterator[Engine]:
    """A database with a table of guests, empty."""
    engine = open_engine(server.url)
    with engine.begin() as connection:
        connection.execute(text(_CREATE))
        connection.execute(text("DELETE FROM visits"))
    yield engine
    engine.dispose()


class Visit:
    """Notes a guest in a transaction that lasts until the server is stopped, at the first try."""

    def __init__(self, engine: Engine) -> None:
        self.tries = 0
        self._engine = engine

    def __call__(self) -> str:
        self.tries += 1
        with self._engine.begin() as connection:
            connection.execute(text("INSERT INTO visits VALUES ('Ada')"))
            if self.tries == 1:
                connection.execute(text("SELECT pg_sleep(60)"))
        return "done"


def asleep(engine: Engine) -> bool:
    at_work = text("SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'")
    with engine.connect() as connection:
        return bool(connection.scalar(at_work))


def visits(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT guest FROM visits")))


def test_a_transaction_that_a_restart_cuts_off_is_done_again_and_once_in_effect(
    server: RestartableServer, guests: Engine
) -> None:
    visit, done = Visit(guests), []
    working = threading.Thread(target=lambda: done.append(retry_on_disconnect(visit)))
    working.start()
    wait_until(lambda: asleep(guests), "the transaction")

    server.stop()
    # Long enough for some tries in vain.
    time.sleep(0.5)
    server.start()
    working.join(30)

    assert done == ["done"]
    assert visit.tries > 2
    assert visits(guests) == ["Ada"]


def test_a_transaction_whose_connection_the_administrator_ends_is_done_again(
    server: RestartableServer, guests: Engine
) -> None:
    visit, done = Visit(guests), []
    working = threading.Thread(target=lambda: done.append(retry_on_disconnect(visit)))
    working.start()
    wait_until(lambda: asleep(guests), "the transaction")

    server.administer(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'"
    )
    working.join(30)

    assert (done, visit.tries, visits(guests)) == (["done"], 2, ["Ada"])


def test_a_server_that_stays_away_is_reported_in_a_sentence(
    server: RestartableServer, guests: Engine
) -> None:
    server.stop()
    began = time.monotonic()
    try:
        with pytest.raises(DatabaseAway) as error:
            retry_on_disconnect(lambda: visits(guests), seconds=0.5)
    finally:
        server.start()

    assert 0.5 <= time.monotonic() - began < 25
    sentence = str(error.value)
    assert sentence.startswith("The database could not be reached for 0.5 s: ")
    assert sentence.endswith(". Check that PostgreSQL runs, then run it again.")
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        pytest.param("INSERT INTO visits VALUES (NULL)", IntegrityError, id="a wrong row"),
        # Of the very kind that a lost connection is of.
        pytest.param(
            "SET statement_timeout = 1; SELECT pg_sleep(5)", OperationalError, id="a time-out"
        ),
    ],
)
def test_an_error_of_the_work_itself_is_raised_at_once(
    guests: Engine, statement: str, error: type[Exception]
) -> None:
    tries: list[int] = []

    def work() -> None:
        tries.append(1)
        with guests.begin() as connection:
            connection.exec_driver_sql(statement)

    with pytest.raises(error):
        retry_on_disconnect(work)

    assert tries == [1]


def test_the_time_counts_from_the_first_error_on(server: RestartableServer, guests: Engine) -> None:
    def late(visit: Callable[[], str]) -> str:
        # Work that takes longer than the time of retrying.
        time.sleep(0.6)
        return visit()

    visit, done = Visit(guests), []
    working = threading.Thread(
        target=lambda: done.append(retry_on_disconnect(lambda: late(visit), seconds=0.5))
    )
    working.start()
    wait_until(lambda: asleep(guests), "the transaction")
    server.administer(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'"
    )
    working.join(30)

    assert done == ["done"]
