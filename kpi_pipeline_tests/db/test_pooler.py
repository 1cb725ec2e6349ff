"""Through PgBouncer in transaction mode, where nothing of a session outlives a transaction."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import URL, Connection, Engine, create_engine, text
from sqlalchemy.exc import ProgrammingError

from kpi_pipeline.db.coordination.lease import exclusive
from kpi_pipeline.db.migrate import require_current, upgrade
from kpi_pipeline.db.server.engine import ensure_database, open_engine, require_usable_by_dagster
from kpi_pipeline.db.server.sessions import in_one_statement, is_pooled
from kpi_pipeline.db.server.urls import with_schema
from kpi_pipeline.errors import KpiError
from kpi_pipeline_tests.pgbouncer import Pooler


@pytest.fixture
def pooled(database: URL, pgbouncer: Pooler) -> Iterator[Engine]:
    engine = open_engine(pgbouncer.through(database))
    yield engine
    engine.dispose()


def often(engine: Engine, work: Callable[[int], None]) -> None:
    """Do `work` forty times in six threads: transactions go from one server process to another."""
    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(work, number) for number in range(40)]:
            done.result(timeout=60)


def test_a_pooler_is_known_from_the_server_itself(engine: Engine, pooled: Engine) -> None:
    with engine.connect() as direct, pooled.connect() as between:
        assert (is_pooled(direct), is_pooled(between)) == (False, True)


def test_statements_that_are_repeated_are_not_prepared(pooled: Engine) -> None:
    def work(number: int) -> None:
        with pooled.begin() as connection:
            for _ in range(8):
                found = connection.scalar(text("SELECT CAST(:it AS int) + 1"), {"it": number})
                assert found == number + 1

    often(pooled, work)


def test_an_engine_that_knows_nothing_of_poolers_fails_there(
    database: URL, pgbouncer: Pooler
) -> None:
    plain = create_engine(pgbouncer.through(database), pool_size=2)
    with (
        pytest.raises(ProgrammingError, match="prepared statement"),
        plain.connect() as one,
        plain.connect() as two,
    ):
        _repeat_in_turn(one, two)
    plain.dispose()


def _repeat_in_turn(*connections: Connection) -> None:
    """Have each connection prepare a statement; all have the same name for their first one.

    Either the server process has that of another already, or the next one does not have it.
    """
    for number, connection in enumerate(connections):
        for _ in range(8):
            connection.execute(text(f"SELECT {number} + :it"), {"it": 1})
            connection.commit()


def test_each_transaction_has_the_schema_and_the_zone_of_its_engine(
    database: URL, pgbouncer: Pooler
) -> None:
    ensure_database(with_schema(database, "ours"))
    url = pgbouncer.through(database)
    ours, others = open_engine(with_schema(url, "ours")), open_engine(url)

    def work(number: int) -> None:
        engine, schema = [(ours, "ours"), (others, "public")][number % 2]
        with engine.connect() as connection:
            for _ in range(2):
                found = connection.execute(
                    text("SELECT current_schema(), current_setting('timezone')")
                )
                assert tuple(found.one()) == (schema, "UTC")
                connection.commit()
        with in_one_statement(engine) as connection:
            assert connection.scalar(text("SELECT current_schema()")) == schema

    often(ours, work)
    ours.dispose()
    others.dispose()


def test_an_upgrade_makes_every_table_in_the_schema_that_is_set(
    administer: Callable[[str], None], postgres: URL, pgbouncer: Pooler
) -> None:
    administer("CREATE DATABASE kpi_with_schema")
    url = with_schema(pgbouncer.url("kpi_with_schema"), "kpi")
    engine = open_engine(url, pool_size=1)
    try:
        ensure_database(url)
        upgrade(engine)
        require_current(engine)
        with engine.connect() as connection:
            tables = connection.execute(
                text("SELECT DISTINCT schemaname FROM pg_tables WHERE schemaname !~ '^pg_|^info'")
            ).all()
        assert [it.schemaname for it in tables] == ["kpi"]
        with pytest.raises(KpiError, match="Set KPI_DATABASE_DIRECT_URL to the same database"):
            require_usable_by_dagster(engine)
    finally:
        engine.dispose()
        administer("DROP DATABASE kpi_with_schema WITH (FORCE)")


def test_only_one_has_the_lock_that_outlives_transactions(pooled: Engine) -> None:
    inside = threading.Lock()

    def work(_: int) -> None:
        with exclusive(pooled, "kpi:test"):
            assert inside.acquire(blocking=False)
            time.sleep(0.002)
            inside.release()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, number) for number in range(8)]:
            done.result(timeout=60)
