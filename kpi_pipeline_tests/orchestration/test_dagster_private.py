"""Each private name of Dagster's exists, and behaves as the pipeline assumes.

When a test here turns red under a new version of Dagster, its message names what to adapt in
dagster_private.py or runtime/storage.py.
"""

import inspect
import multiprocessing
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from importlib import import_module
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster import DagsterEvent, DagsterInstance, DagsterRunStatus, EventLogEntry
from dagster._core.events import StepMaterializationData
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.storage import tags
from dagster._core.storage.dagster_run import FINISHED_STATUSES, NOT_FINISHED_STATUSES
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._daemon.monitoring import run_monitoring
from dagster_postgres import PostgresEventLogStorage, PostgresRunStorage, PostgresScheduleStorage
from sqlalchemy import create_engine, select

from kpi_pipeline.orchestration import dagster_private, runs
from kpi_pipeline.orchestration.runtime import DEFINITIONS
from kpi_pipeline_tests.orchestration.installation import instance_in_files, temporary_instance
from kpi_pipeline_tests.orchestration.old_backfills import add_backfill
from kpi_pipeline_tests.orchestration.ticks import leave_tick

InstigatorType = dagster_private.InstigatorType


@pytest.fixture(scope="module")
def in_files() -> Iterator[DagsterInstance]:
    with instance_in_files() as instance:
        yield instance


def column_types(table: Any, *names: str) -> list[type]:
    return [table.c[name].type.python_type for name in names]


# The clean-up of old runs.


def test_the_event_log_has_the_columns_that_the_clean_up_reads() -> None:
    events = dagster_private.SqlEventLogStorageTable
    texts = ("run_id", "dagster_event_type", "asset_key", "partition")
    assert column_types(events, *texts) == [str] * 4
    assert column_types(events, "id", "timestamp") == [int, datetime]
    assert column_types(dagster_private.AssetEventTagsTable, "event_id") == [int]
    assert column_types(dagster_private.AssetKeyTable, "last_run_id") == [str]
    checks = dagster_private.AssetCheckExecutionsTable
    assert column_types(checks, "asset_key", "check_name") == [str, str]
    assert column_types(checks, "id", "create_timestamp") == [int, datetime]


def test_the_run_storage_has_the_columns_that_the_clean_up_reads() -> None:
    names = ("id", "run_id", "status", "end_time")
    assert column_types(dagster_private.RunsTable, *names) == [int, str, str, float]
    assert column_types(dagster_private.RunTagsTable, "run_id", "key", "value") == [str] * 3
    assert column_types(dagster_private.BulkActionsTable, "key", "status") == [str, str]


def test_a_materialization_outside_of_a_run_has_the_run_id_of_no_run() -> None:
    with temporary_instance() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("news"))
        event = instance.get_latest_materialization_event(dg.AssetKey("news"))
    assert event is not None
    assert event.run_id == dagster_private.RUNLESS_RUN_ID


def test_a_backfill_is_finished_in_these_states_and_unfinished_in_all_others() -> None:
    finished = {status.value for status in dagster_private.BULK_ACTION_TERMINAL_STATUSES}
    assert finished == {
        *("COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"),
    }
    every = type(dagster_private.BULK_ACTION_TERMINAL_STATUSES[0])
    assert {it.value for it in every} - finished == {"REQUESTED", "CANCELING", "FAILING"}


def test_a_run_that_takes_too_long_is_canceled_with_this_message() -> None:
    source = inspect.getsource(run_monitoring.check_run_timeout)
    assert "report_run_canceling" in source
    assert dagster_private.TIMEOUT_MESSAGE in source


def test_the_backfills_that_have_not_ended_are_found(in_files: DagsterInstance) -> None:
    states = [it.value for it in BulkActionStatus]
    ids = {it: add_backfill(in_files, it, ["2026-03-01|acorn"]) for it in states}

    found = dagster_private.unfinished_backfills(in_files)

    unfinished = ("REQUESTED", "CANCELING", "FAILING")
    assert {it.backfill_id for it in found} == {ids[state] for state in unfinished}
    data = found[0].asset_backfill_data
    assert data is not None
    (subset, *_) = data.target_subset.partitions_subsets_by_asset_key.values()
    assert set(subset.get_partition_keys()) == {"2026-03-01|acorn"}


# The states of schedules and sensors.


@pytest.mark.parametrize("kind", ["SCHEDULE", "SENSOR"])
def test_the_instance_returns_states_and_ticks_of_the_types_that_we_read(
    in_files: DagsterInstance, kind: str
) -> None:
    name = f"a {kind.lower()}"
    leave_tick(in_files, name, kind=InstigatorType(kind), good=False)

    (state,) = [it for it in in_files.all_instigator_state() if it.instigator_name == name]
    (tick,) = in_files.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)

    assert isinstance(state, dagster_private.InstigatorState)
    assert state.is_running
    assert state.instigator_type is InstigatorType(kind)
    assert tick.status is dagster_private.TickStatus.FAILURE
    assert {it.value for it in dagster_private.TickStatus} >= {"SUCCESS", "SKIPPED", "FAILURE"}
    storage = in_files.schedule_storage
    assert storage is not None
    found = storage.get_batch_ticks([state.selector_id], limit=1)
    assert [it.timestamp for it in found[state.selector_id]] == [tick.timestamp]


def test_a_schedules_data_tells_when_it_was_turned_on_and_a_sensors_data_does() -> None:
    schedule = dagster_private.ScheduleInstigatorData("1 0 * * *", start_timestamp=5.0)
    sensor = dagster_private.SensorInstigatorData(last_sensor_start_timestamp=7.0)
    assert (schedule.start_timestamp, sensor.last_sensor_start_timestamp) == (5.0, 7.0)


def test_a_cron_line_is_due_from_the_given_moment_on_and_once_where_clocks_change() -> None:
    chicago = ZoneInfo("America/Chicago")
    since = datetime(2026, 3, 7, 2, 30, tzinfo=chicago)
    times = dagster_private.cron_times("30 2 * * *", chicago.key, since.timestamp())
    found = [f"{it.astimezone(chicago):%d %H:%M}" for it in islice(times, 3)]
    # 2:30 does not exist on 8 March.
    assert found == ["07 02:30", "08 03:00", "09 02:30"]


# Tags and states of runs, which are written out in runs.py.


def test_the_tags_are_those_of_dagster() -> None:
    ours = {name: it for name, it in vars(runs).items() if str(it).startswith("dagster/")}
    assert ours == {
        "BACKFILL": tags.BACKFILL_ID_TAG,
        "PARENT_RUN": tags.PARENT_RUN_ID_TAG,
        "PARTITION": tags.PARTITION_NAME_TAG,
        "PRIORITY": tags.PRIORITY_TAG,
        "RANGE_START": tags.ASSET_PARTITION_RANGE_START_TAG,
        "RANGE_END": tags.ASSET_PARTITION_RANGE_END_TAG,
        "ROOT_RUN": tags.ROOT_RUN_ID_TAG,
        "RUN_KEY": tags.RUN_KEY_TAG,
        "SCHEDULE": tags.SCHEDULE_NAME_TAG,
        "SENSOR": tags.SENSOR_NAME_TAG,
        "WILL_RETRY": tags.WILL_RETRY_TAG,
    }
    assert tags.MULTIDIMENSIONAL_PARTITION_PREFIX.startswith(f"{runs.PARTITION}/")


def test_a_run_is_finished_in_the_states_in_which_dagster_says_so() -> None:
    assert set(runs.FINISHED) == set(FINISHED_STATUSES)
    # Managed runs are another product's; in any other state, the two agree.
    assert set(runs.NOT_FINISHED) - {DagsterRunStatus.MANAGED} == set(NOT_FINISHED_STATUSES)


# Materializations, and what was planned, in batches.


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


# The daemon.


GRID = dg.MultiPartitionsDefinition(
    {name: dg.StaticPartitionsDefinition(list("abc")) for name in ("one", "two")}
)


def run_requests_of(
    grid: dg.PartitionsDefinition[str], keys: Collection[str]
) -> Sequence[dg.RunRequest]:
    """The runs that the daemon requests for these partitions of an asset with a check."""
    from dagster._core.definitions.automation_tick_evaluation_context import (
        build_run_requests_with_backfill_policies,
    )
    from dagster._core.definitions.events import AssetKeyPartitionKey

    @dg.asset(partitions_def=grid, backfill_policy=dg.BackfillPolicy.single_run())
    def beacon() -> None:
        pass

    @dg.asset_check(asset=beacon)
    def shines() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    with temporary_instance() as instance:
        return build_run_requests_with_backfill_policies(
            [AssetKeyPartitionKey(dg.AssetKey("beacon"), key) for key in keys],
            dg.Definitions([beacon], asset_checks=[shines]).resolve_asset_graph(),
            instance,
        )


@pytest.fixture
def module_of_the_cut(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Dagster's module that cuts backfills, which is as it was when the test ends."""
    from dagster._core.definitions import automation_tick_evaluation_context as module

    monkeypatch.setattr(module, dagster_private._CUT, getattr(module, dagster_private._CUT))
    return module


@pytest.mark.usefixtures("module_of_the_cut")
def test_a_backfill_is_cut_into_the_ranges_that_we_give() -> None:
    asked: list[tuple[Collection[str], Mapping[str, Sequence[str]]]] = []

    def ranges_of(
        keys: Collection[str], order: Mapping[str, Sequence[str]]
    ) -> Sequence[tuple[str, str]]:
        asked.append((keys, order))
        return [("a|a", "b|c"), ("c|a", "c|a")]

    dagster_private.set_backfill_cut(ranges_of, {"kpi/a_tag": "of all runs"})
    keys = {"a|a", "a|b", "b|a", "c|a"}
    requests = run_requests_of(GRID, keys)

    assert asked == [(keys, {"one": ["a", "b", "c"], "two": ["a", "b", "c"]})]
    assert [it.tags for it in requests] == [
        {runs.RANGE_START: "a|a", runs.RANGE_END: "b|c", "kpi/a_tag": "of all runs"},
        {runs.RANGE_START: "c|a", runs.RANGE_END: "c|a", "kpi/a_tag": "of all runs"},
    ]
    for request in requests:
        assert request.asset_selection == [dg.AssetKey("beacon")]
        assert request.asset_check_keys == [dg.AssetCheckKey(dg.AssetKey("beacon"), "shines")]


@pytest.mark.usefixtures("module_of_the_cut")
@pytest.mark.parametrize("problem", [None, ValueError("as the test asked")])
def test_dagster_cuts_what_we_leave_to_it_and_what_we_cannot_cut(problem: Exception | None) -> None:
    before = run_requests_of(GRID, {"a|a", "a|b", "b|c"})

    def ranges_of(*_: object) -> None:
        if problem is not None:
            raise problem

    dagster_private.set_backfill_cut(ranges_of, {"kpi/a_tag": "of all runs"})
    after = run_requests_of(GRID, {"a|a", "a|b", "b|c"})

    def ranges(requests: Sequence[dg.RunRequest]) -> list[tuple[str, str]]:
        return sorted((it.tags[runs.RANGE_START], it.tags[runs.RANGE_END]) for it in requests)

    assert ranges(after) == ranges(before)
    assert {it.tags["kpi/a_tag"] for it in after} == {"of all runs"}


@pytest.mark.usefixtures("module_of_the_cut")
def test_a_grid_of_one_dimension_is_cut_by_dagster() -> None:
    dagster_private.set_backfill_cut(lambda *_: pytest.fail("was asked"), {})
    (request,) = run_requests_of(dg.StaticPartitionsDefinition(list("abc")), {"a", "b"})
    assert request.tags == {runs.RANGE_START: "a", runs.RANGE_END: "b"}


def test_a_cut_with_other_parameters_stays_dagsters_own(
    module_of_the_cut: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def of_another_version(asset_keys: object) -> None:
        pytest.fail(f"was called with {asset_keys}")

    setattr(module_of_the_cut, dagster_private._CUT, of_another_version)
    dagster_private.set_backfill_cut(lambda *_: [], {})
    assert getattr(module_of_the_cut, dagster_private._CUT) is of_another_version
    assert "its own is used" in caplog.text


def test_the_parameters_of_the_cut_are_those_that_we_know(module_of_the_cut: Any) -> None:
    parameters = inspect.signature(getattr(module_of_the_cut, dagster_private._CUT)).parameters
    assert tuple(parameters) == dagster_private._CUT_PARAMETERS


def test_the_daemon_pauses_between_backfills_and_evaluates_those_that_are_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
    from dagster._daemon import backfill as module
    from dagster._daemon.daemon import BackfillDaemon

    evaluated: list[str] = []

    def evaluate(backfill: PartitionBackfill, *_: object, **__: object) -> Iterator[None]:
        evaluated.append(backfill.backfill_id)
        yield None

    class Recorded:
        """Evaluates "due" alone, and records what it is told."""

        def __init__(self) -> None:
            self.ages: list[float] = []
            self.reading: list[float] = []

        def is_due(self, backfill_id: str, now: float) -> bool:
            assert now <= time.monotonic()
            assert backfill_id != "cancelled", "is not to wait"
            return backfill_id == "due"

        def evaluated(self, backfill_id: str, age: float, began: float, ended: float) -> None:
            assert backfill_id in ("due", "cancelled")
            assert 0 <= ended - began < 10
            self.ages.append(age)

        def pause(self, reading_seconds: float) -> float:
            self.reading.append(reading_seconds)
            return 0.25

    # What a new version calls by another name would not be replaced.
    assert f"{dagster_private._EVALUATE})," in inspect.getsource(module.execute_backfill_jobs)
    monkeypatch.setattr(module, dagster_private._EVALUATE, evaluate)
    monkeypatch.setattr(BackfillDaemon, "core_loop", BackfillDaemon.core_loop)
    pace = Recorded()
    dagster_private.set_backfill_pace(pace)
    waits: list[float] = []
    ending: Any = SimpleNamespace(wait=waits.append)
    with temporary_instance() as instance, BackfillDaemon({}) as daemon:
        for name in ("due", "not due", "cancelled"):
            status = "CANCELING" if name == "cancelled" else "REQUESTED"
            instance.add_backfill(
                PartitionBackfill(
                    name,
                    status=BulkActionStatus(status),
                    from_failure=False,
                    tags={},
                    backfill_timestamp=time.time() - 20,
                )
            )
        context: Any = SimpleNamespace(instance=instance)
        for _ in daemon.core_loop(context, ending):
            if len(waits) == 3:
                break

    assert waits == [0.25] * 3
    assert all(0 <= it < 10 for it in pace.reading)
    assert set(evaluated) == {"due", "cancelled"}
    assert all(20 <= age < 60 for age in pace.ages)


def test_the_daemons_command_is_the_one_that_we_run() -> None:
    from dagster._daemon.cli import main

    (command,) = [it for it in dg_scripts() if it.name == "dagster-daemon"]
    assert command.load() is main


def dg_scripts() -> Sequence[Any]:
    from importlib.metadata import distribution

    return [it for it in distribution("dagster").entry_points if it.group == "console_scripts"]


def test_a_grid_is_listed_as_dagster_lists_it_and_once_until_it_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cls: Any = dg.MultiPartitionsDefinition
    monkeypatch.setattr(cls, "_get_partition_keys", cls._get_partition_keys)
    # Named against the order of the dimensions; and Dagster leaves out keys with a bar.
    days = dg.DailyPartitionsDefinition("2026-03-01", end_date="2026-03-04")
    clients = dg.DynamicPartitionsDefinition(name="clients")
    grid = dg.MultiPartitionsDefinition({"workspace": clients, "date": days})

    def listed() -> Sequence[dg.MultiPartitionKey]:
        return grid.get_partition_keys(dynamic_partitions_store=instance)

    with temporary_instance() as instance:
        instance.add_dynamic_partitions("clients", ["zebra", "a|b", "acorn"])
        dagsters = listed()
        dagster_private.list_grids_fast()
        ours = listed()
        assert listed() is ours
        instance.add_dynamic_partitions("clients", ["mango"])
        changed = listed()

    assert ours == dagsters
    assert len(ours) == 6
    assert [type(key) for key in ours] == [type(key) for key in dagsters]
    assert [key.keys_by_dimension for key in ours] == [key.keys_by_dimension for key in dagsters]
    assert set(changed) - set(ours) == {f"2026-03-0{day}|mango" for day in (1, 2, 3)}


# The code server.


def test_the_code_server_serves_the_module_and_starts_its_runs_through_our_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from dagster._grpc import server

    served: list[Mapping[str, Any]] = []

    class Recording:
        def __init__(self, **given: Any) -> None:
            served.append(given)

        def serve(self) -> None:
            pass

    monkeypatch.setattr(server, "DagsterGrpcServer", Recording)
    ended, processes = threading.Event(), multiprocessing.get_context("forkserver")
    try:
        dagster_private.serve_code(
            DEFINITIONS,
            "a location",
            tmp_path / "socket",
            ended=ended,
            processes=processes,
            threads=2,
        )
        api = served[0]["dagster_api_servicer"]
        assert served[0]["socket"] == str(tmp_path / "socket")
        assert set(api._loaded_repositories.definitions_by_name) == {"__repository__"}
        assert api._mp_ctx is processes
        # The attribute is what starts a run, and nothing else does.
        source = inspect.getsource(server.DagsterApiServer)
        assert "self._mp_ctx.Process(" in source
        assert "multiprocessing.Process(" not in source
    finally:
        ended.set()


@pytest.mark.parametrize("name", dagster_private.RUN_MODULES)
def test_what_is_imported_before_runs_are_forked_exists(name: str) -> None:
    assert import_module(name).__name__ == name


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


# The claim to be the one daemon, and reports in batches.


def test_the_daemons_cursors_are_rows_of_the_table_that_holds_the_claim() -> None:
    assert {"key", "value"} <= set(dagster_private.KeyValueStoreTable.columns.keys())
    with temporary_instance() as instance:
        instance.daemon_cursor_storage.set_cursor_values({"kpi/daemon": "{}"})
        found = instance.daemon_cursor_storage.get_cursor_values({"kpi/daemon"})
    assert found == {"kpi/daemon": "{}"}


def test_a_daemon_sends_its_first_heartbeat_before_it_works_and_ends_with_its_thread() -> None:
    from dagster._daemon.daemon import DagsterDaemon

    loop = inspect.getsource(DagsterDaemon.run_daemon_loop)
    assert 0 < loop.index("_check_add_heartbeat") < loop.index("next(daemon_generator)")
    # SystemExit is none of the errors that it goes on after.
    assert "except BaseException" not in loop
    assert "except:" not in loop
    assert dagster_private.DaemonHeartbeat(1.0, "SENSOR", "it").daemon_id == "it"


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


# The page.


def test_the_command_of_the_page_makes_its_application_with_the_function_that_is_replaced() -> None:
    from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
    from dagster_webserver import cli

    create_app = getattr(cli, dagster_private._CREATE_APP)
    assert [*inspect.signature(create_app).parameters][:2] == [
        "workspace_process_context",
        "path_prefix",
    ]
    source = inspect.getsource(cli.host_dagster_ui_with_workspace_process_context)
    assert f"app = {dagster_private._CREATE_APP}(" in source
    create = inspect.signature(WorkspaceProcessContext.create_request_context)
    assert [*create.parameters] == ["self", "source"]
    made = inspect.signature(WorkspaceRequestContext).parameters
    named = {"instance", "current_workspace", "process_context", "version", "source", "read_only"}
    assert {it.name for it in made.values() if it.default is it.empty} == named
