"""Dagster's event log with pooled connections, on a real PostgreSQL."""

import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import date, timedelta
from typing import cast

import dagster as dg
import pytest
from dagster import DagsterEventType, EventLogEntry
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationPlanned,
)
from dagster._core.definitions.partitions.subset import DefaultPartitionsSubset
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEvent,
    StepMaterializationData,
)
from dagster._core.storage.event_log import SqlEventLogStorageTable
from dagster_postgres import PostgresEventLogStorage
from sqlalchemy import URL, event, func, select

from kpi_pipeline.db.server.urls import for_dagster
from kpi_pipeline.orchestration.runtime.storage import (
    PooledEventLogStorage,
    RetryingRunStorage,
    RetryingScheduleStorage,
)

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


def read_all(storage: PooledEventLogStorage, run_id: str) -> list[dg.EventLogRecord]:
    records: list[dg.EventLogRecord] = []
    page = storage.get_records_for_run(run_id, limit=300)
    while page.records:
        records += page.records
        page = storage.get_records_for_run(run_id, cursor=page.cursor, limit=300)
    return records


AnyStorage = PooledEventLogStorage | RetryingRunStorage | RetryingScheduleStorage


class Statements:
    """Counts what goes to the server, and over how many connections."""

    def __init__(self, storage: AnyStorage) -> None:
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
def test_500_events_take_a_handful_of_statements_and_read_back_unchanged(
    storage: PooledEventLogStorage, kind: Callable[[str, str, str], EventLogEntry]
) -> None:
    run_id = str(uuid.uuid4())
    batch = [kind(run_id, asset, key) for asset in ASSETS for key in partitions(167)][:500]
    statements = Statements(storage)

    storage.store_event_batch(batch)

    assert 0 < len(statements.sent) <= 10
    written = [it for it in statements.sent if it.startswith("INSERT INTO event_logs")]
    assert len(written) == 1
    assert [record.event_log_entry for record in read_all(storage, run_id)] == batch


def partition_sets(run_id: str, keys: Collection[str]) -> list[EventLogEntry]:
    """What Dagster logs for a run over these partitions, if the storage takes sets of them."""
    events = []
    for asset in ASSETS:
        data = AssetMaterializationPlannedData(
            dg.AssetKey(asset), partitions_subset=DefaultPartitionsSubset(set(keys))
        )
        planned = DagsterEvent.build_asset_materialization_planned_event
        events.append(entry(run_id, planned("a job", "client_kpis", data)))
    return events


@pytest.mark.parametrize("checks", [[], ["complete"]])
def test_a_set_of_planned_partitions_is_stored_as_an_event_for_each(
    storage: PooledEventLogStorage, checks: list[str]
) -> None:
    assert storage.supports_partition_subset_in_asset_materialization_planned_events
    run_id, keys = str(uuid.uuid4()), partitions(400)
    sets = partition_sets(run_id, keys)
    statements = Statements(storage)

    storage.store_event_batch([*sets, *(planned_check(run_id, it) for it in checks)])

    written = [it for it in statements.sent if it.startswith("INSERT INTO event_logs")]
    assert len(written) == 1
    stored = [record.event_log_entry for record in read_all(storage, run_id)]
    assert len(stored) == len(ASSETS) * len(keys) + len(checks)
    one = {
        (asset.asset_key, it): asset._replace(
            event_specific_data=AssetMaterializationPlannedData(asset.asset_key, partition=it)
        )
        for asset in (it.get_dagster_event() for it in sets)
        if asset.asset_key is not None
        for it in keys
    }
    found = [it.get_dagster_event() for it in stored if it.get_dagster_event().partition]
    assert {(it.asset_key, it.partition): it for it in found} == one
    asset = dg.AssetKey("client_metrics")
    attempts = storage.get_latest_asset_partition_materialization_attempts_without_materializations
    assert attempts(asset).keys() == set(keys)


def test_a_set_that_is_stored_alone_is_stored_as_an_event_for_each(
    storage: PooledEventLogStorage,
) -> None:
    run_id, keys = str(uuid.uuid4()), partitions(3)

    storage.store_event(partition_sets(run_id, keys)[0])

    found = [it.event_log_entry.get_dagster_event().partition for it in read_all(storage, run_id)]
    assert sorted(map(str, found)) == keys


def test_materializations_with_metadata_read_back_unchanged(storage: PooledEventLogStorage) -> None:
    run_id, now = str(uuid.uuid4()), time.time()
    odd = {"numbers": dg.MarkdownMetadataValue("é\n\\|")}
    of_event_rows = dg.MarkdownMetadataValue("metadata 0 of event_rows")
    materializations = [
        dg.AssetMaterialization(
            "client_metrics",
            partition=dg.MultiPartitionKey({"date": f"2026-01-{day:02}", "workspace": "acorn"}),
            metadata={
                "numbers": dg.MarkdownMetadataValue(f"|{day}|"),
                "as_of": dg.TimestampMetadataValue(1.7e9 + day / 7),
                "fetch": dg.TextMetadataValue(f'"{day}" calls'),
            },
        )
        for day in range(1, 30)
    ]
    materializations += [
        dg.AssetMaterialization("client_metrics", "as found", odd, partition="a"),
        dg.AssetMaterialization("client_metrics", "as found", odd, partition="b"),
        dg.AssetMaterialization("client_metrics", partition="c", metadata={"x": of_event_rows}),
        dg.AssetMaterialization("client_metrics", partition="d", metadata={"rows": 3}),
        dg.AssetMaterialization("client_metrics", metadata={"x": of_event_rows}),
        dg.AssetMaterialization(
            "client_metrics", partition="e", tags={"dagster/code_version": "1"}
        ),
    ]
    kind = DagsterEventType.ASSET_MATERIALIZATION.value
    batch = [
        entry(
            run_id,
            DagsterEvent(
                kind, "a job", event_specific_data=StepMaterializationData(it), message="done"
            ),
        )._replace(timestamp=now)
        for it in materializations
    ]

    storage.store_event_batch(batch)

    read = [record.event_log_entry for record in read_all(storage, run_id)]
    assert read == batch
    assert [it.asset_materialization for it in read] == materializations


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


@pytest.mark.parametrize(
    ("kind", "read"),
    [(RetryingRunStorage, "get_run_records"), (RetryingScheduleStorage, "all_instigator_state")],
)
def test_runs_and_ticks_are_read_over_one_connection_and_the_catalog_once(
    postgres: URL,
    administer: Administer,
    kind: type[RetryingRunStorage | RetryingScheduleStorage],
    read: str,
) -> None:
    name = f"dagster_{uuid.uuid4().hex}"
    administer(f"CREATE DATABASE {name}")
    config = {"postgres_url": for_dagster(postgres.set(database=name))}
    storage = kind.from_config_value(None, config)
    getattr(storage, read)()
    statements = Statements(storage)

    for _ in range(10):
        getattr(storage, read)()

    assert len(statements.sent) == 10
    assert not any("pg_catalog" in it for it in statements.sent)
    assert statements.connections <= 1
    storage.dispose()
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
