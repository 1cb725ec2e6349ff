"""The job as people and the clock start it: Dagster's real page, daemon and processes."""

from datetime import date, datetime, time, timedelta

import pytest

from kpi_pipeline.domain.calendar import days_between, first_of_month
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.services.dagster_page import RunStatus
from kpi_pipeline_tests.end_to_end.agency import ASSETS, Agency
from kpi_pipeline_tests.expected import Row

pytestmark = pytest.mark.server


def differences(agency: Agency, workspaces: list[str], dates: list[date]) -> list[str]:
    """Where `client_metrics` is not what Bison's own window totals say; missing rows included."""
    rows, expected = agency.rows(), agency.expected(workspaces, dates)
    assert len(expected) == len(workspaces) * len(dates)
    return [
        f"{key} {column}: {rows.get(key, {}).get(column)!r} is not {value!r}"
        for key, row in expected.items()
        for column, value in row.items()
        if rows.get(key, {}).get(column, "no row") != value
    ]


def without_times(rows: dict[tuple[str, date], Row]) -> dict[tuple[str, date], Row]:
    return {
        key: {name: value for name, value in row.items() if name not in ("updated_at", "as_of")}
        for key, row in rows.items()
    }


def test_schedules_run_on_a_fresh_installation_without_anybody_starting_them(
    agency: Agency,
) -> None:
    schedules = (
        *("daily_kpi_sync", "hourly_refresh", "clean_up_runs", "delete_old_event_bodies"),
        *("daily_summary", "data_checks", "daily_totals_check", "retry_unanswered_checks"),
    )
    assert agency.schedules_at_start == dict.fromkeys(schedules, "RUNNING")


def test_one_partition_materialized_from_the_page_fills_one_row_of_each_table(
    agency: Agency,
) -> None:
    day, workspace = agency.today - timedelta(days=40), agency.grid[5]
    before = agency.rows().keys()
    tags = {
        "dagster/partition": f"{day}|{workspace}",
        "dagster/partition/date": str(day),
        "dagster/partition/workspace": workspace,
    }

    status, run_id = agency.run(ASSETS, tags)

    assert status is RunStatus.SUCCESS, agency.failure_of(run_id)
    assert agency.rows().keys() - before == {(workspace, day)}
    assert differences(agency, [workspace], [day]) == []


@pytest.mark.long
def test_a_backfill_of_three_clients_and_five_days_fills_exactly_these_rows(
    agency: Agency,
) -> None:
    workspaces = [agency.grid[index] for index in (0, 11, 12)]
    dates = days_between(agency.today - timedelta(days=64), agency.today - timedelta(days=60))
    before = agency.rows().keys()

    ended = agency.backfill([f"{day}|{key}" for day in dates for key in workspaces])

    assert ended == "COMPLETED_SUCCESS"
    assert agency.rows().keys() - before == {(key, day) for key in workspaces for day in dates}
    assert differences(agency, workspaces, dates) == []


@pytest.mark.long
def test_the_tick_after_midnight_on_the_first_closes_the_last_day_of_the_month_before(
    agency: Agency,
) -> None:
    first = first_of_month(agency.today)
    tick = datetime.combine(first, time(0, 1), tzinfo=agency.zone)

    requests = agency.evaluate_schedule("daily_kpi_sync", tick)
    run_ids = [agency.launch_request(request) for request in requests]
    for run_id in run_ids:
        agency.wait_for(run_id)
        assert agency.page.status(run_id) is RunStatus.SUCCESS, agency.failure_of(run_id)

    dates = days_between(first - timedelta(days=7), first)
    assert dates[-2].month != first.month
    assert differences(agency, list(agency.grid), dates) == []


@pytest.mark.long
def test_a_run_that_is_repeated_leaves_identical_rows(agency: Agency) -> None:
    dates = days_between(agency.today - timedelta(days=2), agency.today - timedelta(days=1))
    tags = block_tags(agency.grid, dates)
    assert agency.run(ASSETS, tags)[0] is RunStatus.SUCCESS
    before = [without_times(agency.rows(asset)) for asset in ASSETS]

    assert agency.run(ASSETS, tags)[0] is RunStatus.SUCCESS

    assert [without_times(agency.rows(asset)) for asset in ASSETS] == before
    assert differences(agency, list(agency.grid), dates) == []


@pytest.mark.long
def test_today_is_worked_out_with_the_part_of_it_that_has_passed_and_its_sending_plan(
    agency: Agency,
) -> None:
    status, run_id = agency.run(ASSETS, block_tags(agency.grid, [agency.today]))

    assert status is RunStatus.SUCCESS, agency.failure_of(run_id)
    assert differences(agency, list(agency.grid), [agency.today]) == []
