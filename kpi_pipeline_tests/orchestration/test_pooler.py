"""Dagster's storages through PgBouncer in transaction mode."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import URL, create_engine, text

from kpi_pipeline.db.server.urls import for_dagster
from kpi_pipeline.orchestration.runtime.storage import (
    PooledEventLogStorage,
    RetryingRunStorage,
    RetryingScheduleStorage,
)
from kpi_pipeline_tests.pgbouncer import Pooler


@pytest.fixture
def address(dagster_database: URL, pgbouncer: Pooler) -> str:
    return for_dagster(pgbouncer.through(dagster_database))


@pytest.fixture
def event_log(address: str) -> Iterator[PooledEventLogStorage]:
    storage = PooledEventLogStorage.from_config_value(None, {"postgres_url": address})
    yield storage
    storage.dispose()


def test_what_is_written_side_by_side_is_read_again(event_log: PooledEventLogStorage) -> None:
    def write(number: int) -> None:
        event_log.add_dynamic_partitions("clients", [f"client-{number}"])
        assert event_log.has_dynamic_partition("clients", f"client-{number}")

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(write, number) for number in range(40)]:
            done.result(timeout=60)
    assert len(event_log.get_dynamic_partitions("clients")) == 40


def test_the_time_limit_of_the_page_reaches_no_other_session(
    event_log: PooledEventLogStorage, address: str
) -> None:
    event_log.optimize_for_webserver(statement_timeout=4000, pool_recycle=600, max_overflow=20)
    for _ in range(8):
        event_log.get_dynamic_partitions("clients")
    other = create_engine(address)
    for _ in range(8):
        with other.begin() as connection:
            assert connection.scalar(text("SHOW statement_timeout")) == "0"
    other.dispose()


def test_the_storages_of_a_process_share_their_connections(address: str) -> None:
    config = {"postgres_url": address}
    kinds = (RetryingRunStorage, PooledEventLogStorage, RetryingScheduleStorage)
    storages = [kind.from_config_value(None, config) for kind in kinds]
    assert len({id(it._engine) for it in storages}) == 1
    pool = storages[0]._engine.pool
    for storage in storages:
        assert storage.alembic_version() is not None
    assert pool.status().startswith("Pool size: 1  Connections in pool: 1 ")
    for storage in storages:
        storage.dispose()
