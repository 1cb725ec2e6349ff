"""The server has committed, and the connection broke before it could say so."""

import time
from collections.abc import Iterator
from typing import Any, Self

import psycopg
import pytest
from sqlalchemy import URL, Engine

from kpi_pipeline.db.coordination.lease import MasterKeyLease
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline_tests.db.support import LEASE_SECONDS, leases, pacing_on, run, slots_taken


class Line:
    """Connections to a database that lose the answers to the next `to_lose` commits."""

    def __init__(self, url: URL) -> None:
        self.to_lose = 0
        self.engine = open_engine(url)
        line = self

        class Losing(psycopg.Connection[Any]):
            def commit(self) -> None:
                super().commit()
                line.answered(self)

        class Deleting(psycopg.Cursor[Any]):
            def execute(self, *words: Any, **named: Any) -> Self:
                super().execute(*words, **named)
                # Such a statement commits at once.
                if self.connection.autocommit and str(self.statusmessage).startswith("DELETE"):
                    line.answered(self.connection)
                return self

        def connect(*words: Any, **named: Any) -> Any:
            return Losing.connect(*words, **named, cursor_factory=Deleting)

        self.engine.dialect.connect = connect  # type: ignore[method-assign]

    def answered(self, connection: psycopg.Connection[Any]) -> None:
        """Lose the answer, if one is to be lost."""
        if self.to_lose:
            self.to_lose -= 1
            connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")


@pytest.fixture
def line(database: URL) -> Iterator[Line]:
    line = Line(database)
    yield line
    line.engine.dispose()


def test_a_slot_whose_answer_was_lost_is_held_once_and_does_not_wait_for_itself(
    line: Line, engine: Engine
) -> None:
    began = time.monotonic()

    async def work() -> int:
        line.to_lose = 1
        async with pacing_on(line.engine, calls_in_flight=1).slot():
            return slots_taken(engine)

    assert run(work()) == 1
    assert line.to_lose == 0
    assert time.monotonic() - began < LEASE_SECONDS / 2, "it waited until its own slot expired"
    assert slots_taken(engine) == 0


def test_a_slot_that_was_freed_unheard_is_free(line: Line, engine: Engine) -> None:
    async def work() -> None:
        async with pacing_on(line.engine).slot():
            line.to_lose = 1

    run(work())
    assert line.to_lose == 0
    assert slots_taken(engine) == 0


def test_a_master_key_that_was_taken_unheard_is_used_at_once(line: Line, engine: Engine) -> None:
    began = time.monotonic()

    async def work() -> list[str]:
        line.to_lose = 1
        async with MasterKeyLease(line.engine).held("main"):
            return leases(engine)

    assert run(work()) == ["main"]
    assert line.to_lose == 0
    assert time.monotonic() - began < 50, "it waited until its own lease expired"
    assert leases(engine) == []


def test_what_was_read_is_believed_where_the_master_key_was_given_back_unheard(
    line: Line, engine: Engine
) -> None:
    async def work() -> str:
        async with MasterKeyLease(line.engine).held("main"):
            line.to_lose = 1
            return "some numbers"

    assert run(work()) == "some numbers"
    assert line.to_lose == 0
    assert leases(engine) == []
