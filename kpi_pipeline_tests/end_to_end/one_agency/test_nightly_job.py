"""The job as people and the clock start it: Dagster's real page, daemon and processes."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any

import pytest

from kpi_pipeline.domain.calendar import days_between, first_of_month
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.orchestration.runtime import LOCATION
from kpi_pipeline.services.dagster_page import RunStatus
from kpi_pipeline_tests.agency import ASSETS, differences, without
from kpi_pipeline_tests.end_to_end.running import RunningAgency

pytestmark = pytest.mark.server


def evaluate_schedule(agency: RunningAgency, name: str, tick: datetime) -> list[Mapping[str, Any]]:
    """The runs that the schedule requests at `tick`, evaluated by Dagster's own code server."""
    query = """mutation ($selector: ScheduleSelector!, $at: Float!) {
        scheduleDryRun(selectorData: $selector, timestamp: $at) { __typename
            ... on Error { message }
            ... on DryRunInstigationTick { evaluationResult { error { message }
                runRequests { tags { key value } assetSelection { path } } } } } }"""
    repository = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__"}
    variables = {"selector": {**repository, "scheduleName": name}, "at": tick.timestamp()}
    answer = agency.page.query(query, variables)["scheduleDryRun"]
    assert answer["__typename"] == "DryRunInstigationTick", answer
    assert answer["evaluationResult"]["error"] is None, answer
    requests: list[Mapping[str, Any]] = answer["evaluationResult"]["runRequests"]
    return requests


def wrong_numbers(
    agency: RunningAgency, workspaces: Sequence[str], dates: Sequence[date]
) -> list[str]:
    """Where `client_metrics` is not what Bison's own window totals say; missing rows included."""
    expected = agency.expected(dates, workspaces)
    assert len(expected) == len(workspaces) * len(dates)
    return differences(
        {key: row for key, row in agency.rows().items() if key in expected}, expected
    )


def test_schedules_run_on_a_fresh_installation_without_anybody_starting_them(
    agency: RunningAgency,
) -> None:
    schedules = (
        *("daily_kpi_sync", "intraday_refresh", "clean_up_runs", "delete_old_event_bodies"),
        *("daily_summary", "data_checks", "daily_totals_check", "retry_unanswered_checks"),
    )
    assert agency.schedules_at_start == dict.fromkeys(schedules, "RUNNING")


def test_one_partition_materialized_from_the_page_fills_one_row_of_each_table(
    agency: RunningAgency,
) -> None:
    day, workspace = agency.today - timedelta(days=40), agency.workspaces[5]
    # Another test may have filled it.
    agency.sql(
        "DELETE FROM client_metrics WHERE workspace = :workspace AND metric_date = :day",
        workspace=workspace,
        day=day,
    )
    before = agency.rows().keys()
    tags = {
        "dagster/partition": f"{day}|{workspace}",
        "dagster/partition/date": str(day),
        "dagster/partition/workspace": workspace,
    }

    status, run_id = agency.run(ASSETS, tags)

    assert status is RunStatus.SUCCESS, agency.log_of(run_id)
    assert agency.rows().keys() - before == {(workspace, day)}
    assert wrong_numbers(agency, [workspace], [day]) == []


@pytest.mark.long
def test_a_backfill_of_three_clients_and_five_days_fills_exactly_these_rows(
    agency: RunningAgency,
) -> None:
    workspaces = [agency.workspaces[index] for index in (0, 11, 12)]
    dates = days_between(agency.today - timedelta(days=64), agency.today - timedelta(days=60))
    # Once a client has an older row, the next sync fills what is missing since.
    agency.sql(
        "DELETE FROM client_metrics "
        "WHERE workspace = ANY(:some) AND metric_date BETWEEN :first AND :last",
        some=workspaces,
        first=dates[0],
        last=dates[-1],
    )
    before = agency.rows().keys()

    ended = agency.backfill(dict.fromkeys(workspaces, dates))

    assert ended == ["COMPLETED_SUCCESS"]
    assert agency.rows().keys() - before == {(key, day) for key in workspaces for day in dates}
    assert wrong_numbers(agency, workspaces, dates) == []


@pytest.mark.long
def test_the_tick_after_midnight_on_the_first_closes_the_last_day_of_the_month_before(
    agency: RunningAgency,
) -> None:
    first = first_of_month(agency.today)
    tick = datetime.combine(first, time(0, 1), tzinfo=agency.app.timezone)

    requests = evaluate_schedule(agency, "daily_kpi_sync", tick)
    for request in requests:
        assets = [asset["path"][0] for asset in request["assetSelection"]]
        tags = {tag["key"]: tag["value"] for tag in request["tags"]}
        status, run_id = agency.run(assets, tags)
        assert status is RunStatus.SUCCESS, agency.log_of(run_id)

    dates = days_between(first - timedelta(days=7), first)
    assert dates[-2].month != first.month
    assert wrong_numbers(agency, agency.workspaces, dates) == []


@pytest.mark.long
def test_a_run_that_is_repeated_leaves_identical_rows(agency: RunningAgency) -> None:
    dates = days_between(agency.today - timedelta(days=2), agency.today - timedelta(days=1))
    tags = block_tags(agency.workspaces, dates)
    assert agency.run(ASSETS, tags)[0] is RunStatus.SUCCESS
    before = without(agency.all_rows(), "updated_at", "as_of")

    assert agency.run(ASSETS, tags)[0] is RunStatus.SUCCESS

    assert without(agency.all_rows(), "updated_at", "as_of") == before
    assert wrong_numbers(agency, agency.workspaces, dates) == []


@pytest.mark.long
def test_today_is_worked_out_with_the_part_of_it_that_has_passed_and_its_sending_plan(
    agency: RunningAgency,
) -> None:
    status, run_id = agency.run(ASSETS, block_tags(agency.workspaces, [agency.today]))

    assert status is RunStatus.SUCCESS, agency.log_of(run_id)
    assert wrong_numbers(agency, agency.workspaces, [agency.today]) == []
