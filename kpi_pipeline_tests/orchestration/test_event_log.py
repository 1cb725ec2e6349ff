"""Dagster's event log with pooled connections, on a real PostgreSQL."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta
from typing import cast

import dagster as dg
import pytest
from dagster import DagsterEventType, EventLogEntry
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationPlanned,
)
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEvent,
    StepMaterializationData,
)
from dagster._core.storage.event_log import SqlEventLogStorageTable
from dagster_postgres import PostgresEventLogStorage
from sqlalchemy import URL, event, func, select

from kpi_pipeline.db.server.urls import for_dagster
from kpi_pipeline.orchestration.runtime.storage import PooledEventLogStorage, RetryingRunStorage

Administer = Callable[[str], None]

ASSETS = ("raw_bison_stats", "kpi_projections", "client_metrics")


@pytest.fixture
def storage(postgres: URL, administer: Administer) -> Iterator[PooledEventLogStorage]:
    """A storage in an empty database of its own."""
    name = f"dagster_{uuid.uuid4().hex}"
    administer(f"CREATE DATABASE {name}")
    config = {"postgres_url": for_dagster(postgres.set(database=name))}
    opened = PooledEventLogStorage.from_config_value(None, config)
    yield opened
    opened.dispose()
    # Without FORCE: this fails if a connection was left open.
    administer(f"DROP DATABASE {name}")


def entry(run_id: str, happened: DagsterEvent) -> EventLogEntry:
    return EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=None,
        level=10,
        user_message="",
        run_id=run_id,
        timestamp=time.time(),
        step_key=None,
        job_name="a job",
        dagster_event=happened,
    )


def partitions(count: int) -> list[str]:
    return [f"{date(2025, 1, 1) + timedelta(days=number)}|acorn" for number in range(count)]


def planned(run_id: str, asset: str, partition: str) -> EventLogEntry:
    data = AssetMaterializationPlannedData(dg.AssetKey(asset), partition=partition)
    event_ = DagsterEvent.build_asset_materialization_planned_event("a job", "client_kpis", data)
    return entry(run_id, event_)


def materialized(run_id: str, asset: str, partition: str) -> EventLogEntry:
    data = StepMaterializationData(dg.AssetMaterialization(asset, partition=partition))
    return entry(
        run_id,
        DagsterEvent(
            DagsterEventType.ASSET_MATERIALIZATION.value, "a job", event_specific_data=data
        ),
    )


def planned_check(run_id: str, name: str) -> EventLogEntry:
    return entry(
        run_id,
        DagsterEvent(
            DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value,
            "a job",
            event_specific_data=AssetCheckEvaluationPlanned(
                asset_key=dg.AssetKey("client_metrics"), check_name=name
            ),
        ),
    )


class Statements:
    """Counts what goes to the server, and over how many connections."""

    def __init__(self, storage: PooledEventLogStorage | RetryingRunStorage) -> None:
        self.sent: list[str] = []
        self.connections = 0
        engine = storage._engine
        event.listen(engine, "before_cursor_execute", self._statement)
        event.listen(engine, "connect", self._connected)

    def _statement(self, *arguments: object) -> None:
        self.sent.append(str(arguments[2]))

    def _connected(self, *arguments: object) -> None:
        self.connections += 1


def test_dagster_builds_the_pooled_storage_from_its_configuration(
    storage: PooledEventLogStorage,
) -> None:
    assert type(storage) is PooledEventLogStorage
    configured, original = (
        cast(Mapping[str, object], kind.config_type())
        for kind in (PooledEventLogStorage, PostgresEventLogStorage)
    )
    assert configured.keys() == original.keys()


@pytest.mark.parametrize("kind", [planned, materialized])
def test_500_events_take_a_handful_of_statements(
    storage: PooledEventLogStorage, kind: Callable[[str, str, str], EventLogEntry]
) -> None:
    run_id = str(uuid.uuid4())
    batch = [kind(run_id, asset, key) for asset in ASSETS for key in partitions(167)][:500]
    statements = Statements(storage)

    storage.store_event_batch(batch)

    assert 0 < len(statements.sent) <= 10
    written = [it for it in statements.sent if it.startswith("INSERT INTO event_logs")]
    assert len(written) == 1


@pytest.mark.parametrize("kind", [planned, materialized])
def test_events_stored_in_a_batch_read_back_unchanged(
    storage: PooledEventLogStorage, kind: Callable[[str, str, str], EventLogEntry]
) -> None:
    run_id = str(uuid.uuid4())
    batch = [kind(run_id, asset, key) for asset in ASSETS for key in partitions(167)][:500]

    storage.store_event_batch(batch)

    read: list[EventLogEntry] = []
    page = storage.get_records_for_run(run_id, limit=300)
    while page.records:
        read += [record.event_log_entry for record in page.records]
        page = storage.get_records_for_run(run_id, cursor=page.cursor, limit=300)
    assert read == batch


def test_the_catalogue_shows_each_asset_of_a_batch_with_its_last_planned_event(
    storage: PooledEventLogStorage,
) -> None:
    run_id, keys = str(uuid.uuid4()), partitions(3)

    # Asset by asset in turn, as one step of three assets plans them.
    events = [planned(run_id, asset, key) for key in keys for asset in ASSETS]
    storage.store_event_batch(events)

    known = storage.all_asset_keys()  # type: ignore[no-untyped-call]
    assert {key.to_user_string() for key in known} == set(ASSETS)
    stored = storage.get_records_for_run(run_id).records
    for asset in ASSETS:
        key = dg.AssetKey(asset)
        info = storage.get_latest_planned_materialization_info(key)
        assert info is not None
        last = stored[-len(ASSETS) + ASSETS.index(asset)]
        assert last.event_log_entry == events[-len(ASSETS) + ASSETS.index(asset)]
        assert (info.run_id, info.storage_id) == (run_id, last.storage_id)
        (record,) = storage.get_asset_records([key])
        assert record.asset_entry.last_run_id == run_id
        assert record.asset_entry.last_materialization is None


def test_planned_and_materialized_events_end_up_as_they_do_one_by_one(
    storage: PooledEventLogStorage,
) -> None:
    run_id, keys = str(uuid.uuid4()), partitions(20)
    storage.store_event_batch([planned(run_id, "client_metrics", key) for key in keys])

    storage.store_event_batch([materialized(run_id, "client_metrics", key) for key in keys[:15]])

    asset = dg.AssetKey("client_metrics")
    assert storage.get_materialized_partitions(asset) == set(keys[:15])
    open_ = storage.get_latest_asset_partition_materialization_attempts_without_materializations(
        asset
    )
    assert open_.keys() == set(keys[15:])
    assert {run for run, _ in open_.values()} == {run_id}


def test_checks_are_planned_in_the_batch_of_the_partitions(storage: PooledEventLogStorage) -> None:
    run_id, checks = str(uuid.uuid4()), ["complete", "freshness"]
    batch = [planned(run_id, asset, key) for asset in ASSETS for key in partitions(100)]
    batch[100:100] = [planned_check(run_id, name) for name in checks]
    statements = Statements(storage)

    storage.store_event_batch(batch)

    written = [it for it in statements.sent if it.startswith("INSERT INTO event_logs")]
    assert len(written) == 1
    page = storage.get_records_for_run(run_id, limit=500)
    assert [record.event_log_entry for record in page.records] == batch
    keys = [dg.AssetCheckKey(dg.AssetKey("client_metrics"), name) for name in checks]
    found = storage.get_latest_asset_check_execution_by_key(keys)
    states = {key.name: (it.run_id, it.status.value) for key, it in found.items()}
    assert states == dict.fromkeys(checks, (run_id, "PLANNED"))


def test_the_runs_are_read_over_one_connection(postgres: URL, administer: Administer) -> None:
    name = f"dagster_{uuid.uuid4().hex}"
    administer(f"CREATE DATABASE {name}")
    config = {"postgres_url": for_dagster(postgres.set(database=name))}
    runs = RetryingRunStorage.from_config_value(None, config)
    statements = Statements(runs)

    for _ in range(10):
        runs.get_runs()

    assert len(statements.sent) >= 10
    assert statements.connections <= 1
    runs.dispose()
    # Without FORCE: this fails if a connection was left open.
    administer(f"DROP DATABASE {name}")


def test_fifty_events_use_the_connections_of_one(storage: PooledEventLogStorage) -> None:
    run_id = str(uuid.uuid4())
    statements = Statements(storage)

    for key in partitions(50):
        storage.store_event(materialized(run_id, "client_metrics", key))

    assert len(statements.sent) >= 50
    assert 1 <= statements.connections <= 2
    with storage._engine.connect() as connection:
        stored = connection.scalar(select(func.count()).select_from(SqlEventLogStorageTable))
    assert stored == 50
