"""The grid of dates and clients, and the blocks that runs cover."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterInstance
from dagster._core.definitions.partitions.context import partition_loading_context

from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration.partitions import (
    WORKSPACE,
    add_workspaces,
    block_from_tags,
    block_of,
    block_tags,
    contiguous_groups,
    first_date,
    kpi_grid,
    remove_workspaces,
)
from kpi_pipeline.orchestration.runs import SCHEDULE
from kpi_pipeline.settings import load_settings
from kpi_pipeline.sync.scope import BackfillScope

TODAY = date(2026, 3, 18)
REQUESTED_AT = datetime(2026, 3, 18, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("wanted", "most", "groups"),
    [
        ("abcdef", None, ["abcdef"]),
        ("abcdef", 6, ["abcdef"]),
        ("abcdef", 4, ["abcd", "ef"]),
        ("abcdef", 1, ["a", "b", "c", "d", "e", "f"]),
        ("abef", None, ["ab", "ef"]),
        ("feab", None, ["ab", "ef"]),
        ("bcd", 2, ["bc", "d"]),
        ("abdef", 2, ["ab", "de", "f"]),
        ("f", None, ["f"]),
        ("", None, []),
    ],
)
def test_clients_are_cut_into_contiguous_groups(
    wanted: str, most: int | None, groups: list[str]
) -> None:
    assert list(contiguous_groups("abcdef", list(wanted), most)) == [
        list(group) for group in groups
    ]


def test_a_client_without_a_partition_is_named_with_the_remedy() -> None:
    with pytest.raises(KpiError, match=r"^No partition yet for x, y: .* client_registry\.$"):
        list(contiguous_groups("abc", ["y", "a", "x"]))


def test_the_grid_starts_on_1_january_of_last_year_unless_it_is_configured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert first_date(load_settings(), TODAY) == date(2025, 1, 1)
    assert first_date(load_settings(), date(2027, 1, 1)) == date(2026, 1, 1)

    monkeypatch.setenv("KPI_FIRST_DATE", "2025-11-05")

    assert first_date(load_settings(), TODAY) == date(2025, 11, 5)


@pytest.mark.parametrize(
    ("instant", "last"),
    [
        (datetime(2026, 3, 18, 5, 1, tzinfo=UTC), "2026-03-18"),
        (datetime(2026, 3, 19, 4, 59, tzinfo=UTC), "2026-03-18"),
        (datetime(2026, 3, 19, 5, 0, tzinfo=UTC), "2026-03-19"),
    ],
    ids=["a minute after midnight", "a minute before it", "at midnight"],
)
def test_the_last_date_of_the_grid_is_the_open_business_day(
    instance: DagsterInstance, instant: datetime, last: str
) -> None:
    add_workspaces(instance, ["acorn", "birch"])
    grid = kpi_grid(load_settings(), TODAY)

    with partition_loading_context(instant, instance):
        keys = list(grid.get_partition_keys())

    days = [key.keys_by_dimension["date"] for key in keys]
    assert (min(days), max(days)) == ("2025-01-01", last)
    assert str(keys[0]) == "2025-01-01|acorn"
    assert len(keys) == 2 * len(set(days))


def test_dagster_reads_the_block_from_the_tags_of_a_run(
    instance: DagsterInstance,
) -> None:
    # The order of the grid is that in which clients were added, not the alphabet.
    add_workspaces(instance, ["zinnia", "acorn", "moss", "birch"])
    dates = [date(2026, 2, 28), date(2026, 3, 2), date(2026, 3, 1)]

    tags = block_tags(["acorn", "moss"], dates)

    assert tags == {
        "dagster/asset_partition_range_start": "2026-02-28|acorn",
        "dagster/asset_partition_range_end": "2026-03-02|moss",
    }
    grid = kpi_grid(load_settings(), TODAY)
    with partition_loading_context(datetime(2026, 3, 18, 20, tzinfo=UTC), instance):
        keys = grid.get_partition_keys_in_range(dg.PartitionKeyRange(*tags.values()))
    assert set(keys) == {f"{day}|{slug}" for day in dates for slug in ("acorn", "moss")}


def test_new_clients_come_after_the_others_and_inactive_ones_leave(
    instance: DagsterInstance,
) -> None:
    add_workspaces(instance, ["acorn", "birch", "cedar"])
    assert instance.get_dynamic_partitions(WORKSPACE) == ["acorn", "birch", "cedar"]

    add_workspaces(instance, ["alder", "cedar", "acorn"])
    assert instance.get_dynamic_partitions(WORKSPACE) == ["acorn", "birch", "cedar", "alder"]

    assert remove_workspaces(instance, ["birch"], datetime.now(UTC)) == []
    assert instance.get_dynamic_partitions(WORKSPACE) == ["acorn", "cedar", "alder"]


@dataclass
class _Run:
    tags: Mapping[str, str]
    parent_run_id: str | None = None


class _Instance:
    """A Dagster with one backfill of these partitions; without any, it knows no backfill."""

    def __init__(self, *backfill_keys: str) -> None:
        self._keys = backfill_keys

    def get_backfill(self, backfill_id: str) -> Any:
        if not self._keys:
            return None
        subset = SimpleNamespace(get_partition_keys=lambda: self._keys)
        subsets = {dg.AssetKey("client_metrics"): subset}
        target = SimpleNamespace(partitions_subsets_by_asset_key=subsets)
        return SimpleNamespace(
            backfill_timestamp=REQUESTED_AT.timestamp(),
            asset_backfill_data=SimpleNamespace(target_subset=target),
        )


@dataclass
class _Context:
    """The part of a step's context that says what the run covers."""

    partition_keys: Sequence[str]
    tags: Mapping[str, str]
    instance: _Instance = field(default_factory=_Instance)
    parent_run_id: str | None = None

    @property
    def run(self) -> _Run:
        return _Run(self.tags, self.parent_run_id)


def context_of(*keys: str) -> Any:
    return _Context(keys, {})


def test_a_run_covers_consecutive_dates_and_clients_in_the_order_of_the_grid() -> None:
    keys = [f"{day}|{slug}" for slug in ("zinnia", "acorn") for day in ("2026-03-01", "2026-02-28")]

    block = block_of(context_of(*keys))

    assert block.dates == [date(2026, 2, 28), date(2026, 3, 1)]
    assert block.workspaces == ["zinnia", "acorn"]


@pytest.mark.parametrize(
    "keys",
    [
        ["2026-03-01|acorn", "2026-03-02|acorn", "2026-03-01|birch"],
        ["2026-03-01|acorn", "2026-03-03|acorn"],
    ],
    ids=["a corner is missing", "a day is missing"],
)
def test_partitions_that_are_no_block_fail_the_run(keys: list[str]) -> None:
    with pytest.raises(dg.Failure, match="no block") as caught:
        block_of(context_of(*keys))

    assert caught.value.allow_retries is False


@pytest.mark.parametrize("single", ["dagster/partition", "dagster/partition/date"])
def test_the_tags_of_a_range_and_of_single_partitions_fail_the_run(single: str) -> None:
    context = context_of("2026-03-01|acorn")
    context.tags = {**block_tags(["acorn"], [date(2026, 3, 1)]), single: "2026-03-01|acorn"}

    with pytest.raises(dg.Failure, match="both a range of partitions and single partitions"):
        block_of(context)

    # Nor do the sensors take the range for the run's block: they would cut it into other runs.
    assert block_from_tags(context.tags, ["acorn"]) is None


def test_runs_of_a_backfill_share_their_facts_but_one_that_is_started_again_fetches_them() -> None:
    context = context_of("2026-03-02|acorn")
    context.tags = {"dagster/backfill": "abc"}
    context.instance = _Instance(*(f"2026-03-0{day}|acorn" for day in (1, 2, 3)))

    scope = BackfillScope(REQUESTED_AT, date(2026, 3, 1), date(2026, 3, 3))
    assert block_of(context).backfill == scope

    context.parent_run_id = "the run that failed"
    assert block_of(context).backfill is None


@pytest.mark.parametrize(
    ("schedule", "minutes"), [("intraday_refresh", 57), ("daily_kpi_sync", 0), (None, 0)]
)
def test_a_refresh_alone_takes_a_sending_plan_of_the_last_hour_for_new(
    schedule: str | None, minutes: int
) -> None:
    context = context_of("2026-03-02|acorn")
    context.tags = {SCHEDULE: schedule} if schedule else {}
    assert block_of(context).plan_max_age == timedelta(minutes=minutes)


def test_tags_that_only_begin_like_those_of_a_partition_are_no_partition() -> None:
    context = context_of("2026-03-01|acorn")
    tags = block_tags(["acorn"], [date(2026, 3, 1)])
    context.tags = {**tags, "dagster/partition_set": "x", "dagster/backfill": "abc"}

    assert block_of(context).workspaces == ["acorn"]
