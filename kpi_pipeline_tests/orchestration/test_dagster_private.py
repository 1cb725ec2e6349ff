"""Each private name of Dagster's exists, and behaves as the pipeline assumes.

When a test here turns red under a new version of Dagster, its message names what to adapt in
dagster_private.py or runtime/storage.py.
"""

import asyncio
import inspect
import multiprocessing
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.storage import tags
from dagster._core.storage.dagster_run import FINISHED_STATUSES, NOT_FINISHED_STATUSES
from dagster._daemon.monitoring import run_monitoring
from sqlalchemy import URL
from sqlalchemy import inspect as inspect_database

from kpi_pipeline.db.server.engine import open_engine
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


@pytest.fixture
def class_of_checks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Dagster's class of a check's execution, which is as it was when the test ends."""
    from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord

    dagsters = getattr(AssetCheckExecutionRecord, dagster_private._IS_SHOWN)
    monkeypatch.setattr(AssetCheckExecutionRecord, dagster_private._IS_SHOWN, dagsters)
    return AssetCheckExecutionRecord


def test_the_last_result_of_a_check_is_shown_after_its_asset_was_materialized_again(
    class_of_checks: Any,
) -> None:
    from dagster._core.loader import LoadingContextForTest
    from dagster_graphql.schema.asset_checks import GrapheneAssetCheck

    @dg.asset
    def beacon() -> None:
        pass

    @dg.asset_check(asset=beacon)
    def shines() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False)

    async def is_shown() -> bool:
        # One of these for each request of the page.
        context = LoadingContextForTest(instance)
        execution = await class_of_checks.gen(context, shines.check_key)
        return bool(await execution.targets_latest_materialization(context))

    with temporary_instance() as instance:
        assert dg.materialize([beacon, shines], instance=instance).success
        instance.report_runless_asset_event(dg.AssetMaterialization(beacon.key))
        shown = [asyncio.run(is_shown())]
        dagster_private.show_last_checks()
        shown.append(asyncio.run(is_shown()))

    assert shown == [False, True]
    page = inspect.getsource(GrapheneAssetCheck.resolve_executionForLatestMaterialization)
    assert f"record.{dagster_private._IS_SHOWN}(" in page


# Dumps.


@pytest.mark.server
def test_the_tables_that_are_dumped_are_all_of_dagsters(dagster_database: URL) -> None:
    engine = open_engine(dagster_database)
    with engine.connect() as connection:
        found = set(inspect_database(connection).get_table_names())
    engine.dispose()
    assert {*dagster_private.STORAGE_TABLES, "daemon_heartbeats", "alembic_version"} == found
