"""The database's clock, whatever the clock of this machine says."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, create_engine, event, text

from kpi_pipeline.db.server.clock import INTERVAL_SECONDS, DatabaseClock

_A_MOMENT = timedelta(seconds=20)
_WRONG = timedelta(hours=26)


class Steady:
    """The steady clock of a machine, set by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def ahead() -> datetime:
    return datetime.now(UTC) + _WRONG


def of_database(engine: Engine) -> datetime:
    with engine.connect() as connection:
        found: datetime = connection.scalar(text("SELECT clock_timestamp()"))
        return found


@pytest.fixture
def asked() -> Iterator[list[str]]:
    """Each time that a database was asked for its clock."""
    found: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        if "clock_timestamp" in statement:
            found.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield found
    event.remove(Engine, "before_cursor_execute", note)


@pytest.fixture
def unreachable(engine: Engine, administer: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Lets nobody connect to the test's database any more."""
    change = f'ALTER DATABASE "{engine.url.database}" ALLOW_CONNECTIONS'

    def forbid() -> None:
        engine.dispose()
        administer(f"{change} false")

    yield forbid
    administer(f"{change} true")


@pytest.mark.parametrize("wrong", [_WRONG, -_WRONG])
def test_a_machine_whose_clock_is_wrong_has_the_time_of_the_database(
    engine: Engine, wrong: timedelta
) -> None:
    clock = DatabaseClock(engine, system=lambda: datetime.now(UTC) + wrong)
    assert abs(clock() - of_database(engine)) < _A_MOMENT
    assert clock().tzinfo is UTC


def test_the_database_is_asked_once_a_minute(engine: Engine, asked: list[str]) -> None:
    steady = Steady()
    clock = DatabaseClock(engine, steady=steady, system=ahead)
    first = clock()
    steady.seconds += INTERVAL_SECONDS - 1
    assert clock() - first == timedelta(seconds=INTERVAL_SECONDS - 1)
    assert len(asked) == 1
    steady.seconds += 2
    assert abs(clock() - of_database(engine)) < _A_MOMENT
    assert len(asked) == 3


def test_the_last_answer_holds_while_the_database_cannot_be_reached(
    engine: Engine, unreachable: Callable[[], None], asked: list[str]
) -> None:
    steady = Steady()
    clock = DatabaseClock(engine, steady=steady, system=ahead)
    first = clock()
    unreachable()
    steady.seconds += 3 * INTERVAL_SECONDS
    assert clock() - first == timedelta(seconds=3 * INTERVAL_SECONDS)
    assert len(asked) == 1


def test_the_system_clock_is_used_before_the_first_answer(
    engine: Engine, unreachable: Callable[[], None]
) -> None:
    unreachable()
    assert abs(DatabaseClock(engine, system=ahead)() - ahead()) < _A_MOMENT


def test_no_thread_gets_the_time_of_the_machine_while_another_one_asks(engine: Engine) -> None:
    clock = DatabaseClock(engine, system=ahead)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: clock(), range(64)))
    assert all(abs(it - of_database(engine)) < _A_MOMENT for it in found)


def test_a_caller_may_hold_the_only_connection_of_the_pool(engine: Engine) -> None:
    steady = Steady()
    small = create_engine(engine.url, pool_size=1, max_overflow=0)
    clock = DatabaseClock(small, steady=steady, system=ahead)
    with small.connect():
        assert abs(clock() - of_database(engine)) < _A_MOMENT
        steady.seconds += 2 * INTERVAL_SECONDS
        assert abs(clock() - of_database(engine)) < _A_MOMENT
    small.dispose()
