"""Dagster's daemon has what we replace in it and rely on, and behaves as the pipeline assumes.

When a test here turns red under a new version of Dagster, its message names what to adapt in
dagster_private.py or runtime/one_daemon.py.
"""

import inspect
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus

from kpi_pipeline.orchestration import dagster_private, runs
from kpi_pipeline_tests.orchestration.installation import temporary_instance

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
    from dagster._core.execution.backfill import PartitionBackfill
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
