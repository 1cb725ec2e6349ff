"""Dagster stores events and lists what was planned as the pipeline assumes.

When a test here turns red under a new version of Dagster, its message names what to adapt in
dagster_private.py or runtime/storage.py.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterEvent, DagsterInstance, EventLogEntry
from dagster._core.events import StepMaterializationData
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster_postgres import PostgresEventLogStorage, PostgresRunStorage, PostgresScheduleStorage
from sqlalchemy import create_engine, select

from kpi_pipeline.orchestration import dagster_private, runs
from kpi_pipeline_tests.orchestration.installation import temporary_instance


def test_materializations_are_logged_in_batches_and_stay_when_the_step_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "500")
    keys = ["a", "b", "c"]

    @dg.asset(
        partitions_def=dg.StaticPartitionsDefinition(keys),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def beacon(context: dg.AssetExecutionContext) -> None:
        dagster_private.log_materializations(
            context, [dg.AssetMaterialization("beacon", partition=key) for key in keys[:2]]
        )
        raise dg.Failure("as the test asked", allow_retries=False)

    with temporary_instance() as instance:
        batches: list[int] = []
        store = instance.event_log_storage.store_event_batch

        def counted(events: Sequence[EventLogEntry]) -> None:
            batches.append(len(events))
            store(events)

        monkeypatch.setattr(instance.event_log_storage, "store_event_batch", counted)
        result = dg.materialize(
            [beacon],
            instance=instance,
            tags={runs.RANGE_START: "a", runs.RANGE_END: "c"},
            raise_on_error=False,
        )

        assert not result.success
        assert instance.get_materialized_partitions(dg.AssetKey("beacon")) == {"a", "b"}
        assert 2 in batches, "both in one batch"


@pytest.mark.parametrize("batch_size", ["0", "500"])
def test_a_partition_that_a_failed_run_logs_as_planned_is_shown_as_failed(
    monkeypatch: pytest.MonkeyPatch, batch_size: str
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", batch_size)
    keys = dg.StaticPartitionsDefinition(["a", "b", "c"])
    other = dg.AssetKey("other")

    @dg.multi_asset(
        specs=[dg.AssetSpec("beacon"), dg.AssetSpec(other)],
        partitions_def=keys,
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def lights(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
        dagster_private.log_planned(context, other, ["a", "b"])
        shown.append(_shown(instance, other, keys))
        dagster_private.log_materializations(
            context, [dg.AssetMaterialization(other, partition="a")]
        )
        raise dg.Failure("as the test asked", allow_retries=False)
        yield

    shown: list[tuple[set[str], set[str], set[str]]] = []
    with temporary_instance() as instance:
        result = dg.materialize(
            [lights],
            instance=instance,
            selection=["beacon"],
            tags={runs.RANGE_START: "a", runs.RANGE_END: "c"},
            raise_on_error=False,
        )

        assert not result.success
        assert shown == [(set(), set(), {"a", "b"})], "under way"
        assert _shown(instance, other, keys) == ({"a"}, {"b"}, set())


def _shown(
    instance: DagsterInstance, asset: dg.AssetKey, keys: dg.PartitionsDefinition[str]
) -> tuple[set[str], set[str], set[str]]:
    """The partitions that the asset's page shows as materialized, failed and under way."""
    value = get_and_update_asset_status_cache_value(instance, asset, keys, instance)
    assert value is not None
    subsets = (
        value.deserialize_materialized_partition_subsets(keys),
        value.deserialize_failed_partition_subsets(keys),
        value.deserialize_in_progress_partition_subsets(keys),
    )
    materialized, failed, in_progress = (set(it.get_partition_keys()) for it in subsets)
    return materialized, failed, in_progress


@pytest.mark.parametrize("batch_size", ["0", "500"])
def test_materializations_of_no_run_are_reported_in_batches(
    monkeypatch: pytest.MonkeyPatch, batch_size: str
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", batch_size)
    reports = [dg.AssetMaterialization("beacon", partition=it) for it in ("a", "b")]
    with temporary_instance() as instance:
        dagster_private.report_materializations(instance, reports)
        assert instance.get_materialized_partitions(dg.AssetKey("beacon")) == {"a", "b"}
        records = instance.fetch_materializations(dg.AssetKey("beacon"), limit=9).records
        assert {record.run_id for record in records} == {dagster_private.RUNLESS_RUN_ID}


# What runtime/storage.py overrides and calls.


class Connected(Exception):  # noqa: N818 - no error, but a sign
    """Raised by the method that ours overrides, in place of a connection."""


def with_our_method(base: type[Any], method: str) -> Any:
    """A storage of dagster-postgres without a database, whose `method` is overridden."""

    def connected(*_: object) -> None:
        raise Connected

    ours: Any = type("Ours", (base,), {method: connected})
    storage = ours.__new__(ours)
    storage._engine = create_engine("postgresql+psycopg2://127.0.0.1:1/none")
    return storage


@pytest.mark.parametrize(
    ("base", "method", "query"),
    [
        (PostgresRunStorage, "connect", lambda it: it.fetchall(select(1))),
        (PostgresRunStorage, "connect", lambda it: it.fetchone(select(1))),
        (PostgresRunStorage, "fetchall", lambda it: it.get_runs()),
        (PostgresRunStorage, "connect", lambda it: it.add_run_tags("a run", {"a": "b"})),
        (PostgresScheduleStorage, "connect", lambda it: it.all_instigator_state()),
        (PostgresEventLogStorage, "_connect", lambda it: it.index_connection()),
        (PostgresEventLogStorage, "_connect", lambda it: it.get_maximum_record_id()),
        (PostgresEventLogStorage, "_connect", lambda it: it.has_dynamic_partition("a", "b")),
        (PostgresEventLogStorage, "_connect", lambda it: it.get_dynamic_partitions("a")),
    ],
)
def test_the_storages_connect_through_the_methods_that_ours_override(
    base: type[Any], method: str, query: Callable[[Any], object]
) -> None:
    with pytest.raises(Connected):
        query(with_our_method(base, method))


def test_the_event_log_has_the_steps_of_storing_a_batch() -> None:
    event = DagsterEvent(
        "ASSET_MATERIALIZATION",
        "a job",
        event_specific_data=StepMaterializationData(
            dg.AssetMaterialization("beacon", partition="a", tags={"a": "b"})
        ),
    )
    entry = EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=None,
        level=10,
        user_message="",
        run_id="a run",
        timestamp=0.0,
        dagster_event=event,
    )
    storage = with_our_method(PostgresEventLogStorage, "_connect")

    row = storage._event_to_row(entry)

    assert {name: row[name] for name in ("run_id", "dagster_event_type", "partition")} == {
        "run_id": "a run",
        "dagster_event_type": "ASSET_MATERIALIZATION",
        "partition": "a",
    }
    columns = dagster_private.SqlEventLogStorageTable.c
    assert row.keys() <= {column.name for column in columns}
    # test_event_log.py compares what these two write with what the base class writes.
    for name, arguments in {
        "_store_asset_event_tags": ["self", "conn", "events", "event_ids"],
        "_store_asset_event": ["self", "conn", "event", "event_id"],
    }.items():
        method = getattr(PostgresEventLogStorage, name)
        assert list(inspect.signature(method).parameters) == arguments, name
