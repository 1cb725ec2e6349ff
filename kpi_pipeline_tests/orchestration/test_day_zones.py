"""Dagster's dates are days of Email Bison, its ticks are times of the agency."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster import DagsterInstance
from dagster._core.definitions.partitions.context import partition_loading_context

from kpi_pipeline.definitions import build_definitions
from kpi_pipeline.orchestration.partitions import WORKSPACE, kpi_grid
from kpi_pipeline.orchestration.runs import RANGE_END, RANGE_START, SUMMARY_OF
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.orchestration.ticks import ActiveClients

CHICAGO = ZoneInfo("America/Chicago")


@pytest.fixture(autouse=True)
def _zones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agency is in Chicago; Email Bison counts by Tokyo, 14 hours ahead."""
    monkeypatch.setenv("KPI_TIMEZONE", "America/Chicago")
    monkeypatch.setenv("KPI_BISON_TIMEZONE", "Asia/Tokyo")


def tick(name: str, instance: DagsterInstance, at: datetime) -> dg.RunRequest:
    schedule = build_definitions(load_settings()).resolve_schedule_def(name)
    assert schedule.execution_timezone == "America/Chicago"
    with dg.build_schedule_context(
        instance=instance, scheduled_execution_time=at, resources={"app": ActiveClients()}
    ) as context:
        requests = schedule.evaluate_tick(context).run_requests or ()
    return requests[-1]


@pytest.mark.parametrize(
    ("name", "at", "first", "last"),
    [
        ("daily_kpi_sync", (18, 0, 1), "2026-03-11", "2026-03-18"),
        ("intraday_refresh", (18, 9, 30), "2026-03-17", "2026-03-18"),
        ("intraday_refresh", (18, 10, 30), "2026-03-18", "2026-03-19"),
    ],
)
def test_a_sync_that_ticks_in_chicago_covers_the_days_of_email_bison(
    instance: DagsterInstance, name: str, at: tuple[int, int, int], first: str, last: str
) -> None:
    instance.add_dynamic_partitions(WORKSPACE, ["acorn"])
    request = tick(name, instance, datetime(2026, 3, *at, tzinfo=CHICAGO))
    assert (request.tags[RANGE_START], request.tags[RANGE_END]) == (
        f"{first}|acorn",
        f"{last}|acorn",
    )


@pytest.mark.parametrize(
    ("instant", "last"),
    [
        (datetime(2026, 3, 18, 14, 59, tzinfo=UTC), "2026-03-18"),
        (datetime(2026, 3, 18, 15, 0, tzinfo=UTC), "2026-03-19"),
    ],
)
def test_the_grid_ends_with_the_open_day_of_email_bison(
    instance: DagsterInstance, instant: datetime, last: str
) -> None:
    instance.add_dynamic_partitions(WORKSPACE, ["acorn"])
    with partition_loading_context(instant, instance):
        keys = kpi_grid(load_settings(), date(2026, 3, 18)).get_partition_keys()
    assert max(keys) == f"{last}|acorn"


@pytest.mark.parametrize(("hour", "day"), [(8, "2026-03-17"), (11, "2026-03-18")])
def test_the_summary_is_of_the_last_closed_day_of_email_bison(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch, hour: int, day: str
) -> None:
    monkeypatch.setenv("KPI_SUMMARY_AT", f"{hour:02}:00")
    request = tick("daily_summary", instance, datetime(2026, 3, 18, hour, tzinfo=CHICAGO))
    assert request.tags[SUMMARY_OF] == day


def test_the_page_says_which_zone_bounds_a_day() -> None:
    specs = build_definitions(load_settings()).resolve_all_asset_specs()
    (facts,) = [it for it in specs if it.key == dg.AssetKey("raw_bison_stats")]
    assert "from midnight to midnight in Asia/Tokyo" in str(facts.description)
