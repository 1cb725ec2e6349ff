"""What a person sees in Dagster's page."""

import os
from datetime import timedelta

import pytest

from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.services.dagster_page import RunStatus
from kpi_pipeline_tests.agency import ASSETS
from kpi_pipeline_tests.end_to_end.chromium import (
    find_chromium,
    open_page,
    pick_partition,
    show_grid,
)
from kpi_pipeline_tests.end_to_end.running import RunningAgency

pytestmark = [pytest.mark.server, pytest.mark.browser]


# Read on import: while a test runs, no KPI_ variable of the developer's is there.
_REQUIRED = os.environ.get("KPI_TEST_BROWSER") == "required"


def require_chromium() -> str:
    """The path of the browser; without one the test is skipped, or fails where it is required."""
    path = find_chromium()
    if path is None:
        assert not _REQUIRED, "there is no chromium"
        pytest.skip("needs Debian's package chromium")
    return path


def test_the_partition_grid_shows_each_client_and_the_numbers_of_a_clicked_partition(
    agency: RunningAgency,
) -> None:
    chromium = require_chromium()
    dates = days_between(agency.today - timedelta(days=33), agency.today - timedelta(days=31))
    assert agency.run(ASSETS, block_tags(agency.workspaces, dates))[0] is RunStatus.SUCCESS
    workspace, day = agency.workspaces[2], dates[1]

    with open_page(chromium) as page:
        show_grid(page, agency.page.url, dates[0], dates[-1])
        page.get_by_text(f"Materialized ({3 * 26})").wait_for()
        page.get_by_text("Missing (0)").wait_for()
        page.get_by_text("Failed (0)").wait_for()
        pick_partition(page, day, workspace)
        shown = page.inner_text("body")

    row = agency.rows()[workspace, day]
    cells = shown.split()
    for column in ("positive_replies_mtd", "emails_sent_today", "emails_sent_mtd"):
        assert cells[cells.index(column) + 1] == f"{row[column]:,}"
    assert row["display_name"] in shown


def test_the_catalogue_describes_an_asset_and_the_columns_of_its_table(
    agency: RunningAgency,
) -> None:
    chromium = require_chromium()

    with open_page(chromium) as page:
        page.goto(f"{agency.page.url}/assets/client_metrics")
        page.get_by_text("The table that dashboards read").first.wait_for(timeout=60_000)
        page.get_by_text("projection_positive_replies_eom").first.wait_for()
        page.get_by_text("campaign-analytics").first.wait_for()
