"""Materialize in Dagster's page, by clicks, from the page of each of the three assets."""

import os
import re
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Page

from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline_tests.agency import ASSETS, SERIES, differences
from kpi_pipeline_tests.end_to_end.chromium import open_dialog, open_page
from kpi_pipeline_tests.end_to_end.one_agency.test_screen import require_chromium
from kpi_pipeline_tests.end_to_end.running import RunningAgency

pytestmark = [pytest.mark.server, pytest.mark.browser, pytest.mark.long, pytest.mark.weekly]

_SECONDS = 120
# Where to leave pictures for a person to look at; nowhere unless it is set.
_PICTURES = os.environ.get("KPI_TEST_PICTURES")


def picture(page: Page, name: str) -> None:
    if _PICTURES:
        page.screenshot(path=Path(_PICTURES) / f"{name}.png")


def open_partitions(page: Page, agency: RunningAgency, asset: str, dates: Sequence[date]) -> None:
    """Open the grid of an asset, narrowed down to the dates."""
    page.goto(f"{agency.page.url}/assets/{asset}?view=partitions")
    field = page.get_by_placeholder("...")
    field.wait_for(timeout=60_000)
    field.fill(f"[{dates[0]}...{dates[-1]}]")
    field.press("Enter")
    page.get_by_text(f"{26 * len(dates):,} Partitions Selected").wait_for()


def materialize(
    page: Page,
    agency: RunningAgency,
    asset: str,
    workspaces: Sequence[str],
    dates: Sequence[date],
    *,
    only_failed_and_missing: bool = False,
) -> None:
    """Press Materialize on the asset's page, choose dates and clients in the dialog, and launch."""
    backfills = len(backfills_of(agency))
    open_partitions(page, agency, asset, dates)
    dialog = open_dialog(page, workspaces, dates)
    if only_failed_and_missing:
        dialog.get_by_text("Backfill only failed and missing partitions").click()
    picture(page, f"dialog-{asset}")
    dialog.get_by_role("button", name=re.compile("^Launch")).click()
    agency.poll(lambda: len(backfills_of(agency)) > backfills, "the launch", _SECONDS)
    agency.end_of(backfills_of(agency)[0])
    agency.poll(agency.is_at_rest, "the end of the runs", _SECONDS)


def backfills_of(agency: RunningAgency) -> list[str]:
    """The ids of all backfills, the latest first."""
    query = "{ partitionBackfillsOrError { ... on PartitionBackfills { results { id } } } }"
    found = agency.page.query(query, {})["partitionBackfillsOrError"]["results"]
    return [it["id"] for it in found]


def require_shown(
    page: Page, agency: RunningAgency, dates: Sequence[date], *, green: int, red: int
) -> None:
    """Each of the three assets' pages shows so many partitions of the dates as green and red."""
    for asset in ASSETS:
        open_partitions(page, agency, asset, dates)
        page.get_by_text(f"Materialized ({green})").wait_for(timeout=60_000)
        page.get_by_text(f"Failed ({red})").wait_for(timeout=60_000)
        picture(page, f"grid-{asset}-{green}-green-{red}-red")


def wrong_numbers(
    agency: RunningAgency, workspaces: Sequence[str], dates: Sequence[date]
) -> list[str]:
    expected = agency.expected(dates, workspaces)
    return differences({key: it for key, it in agency.rows().items() if key in expected}, expected)


@pytest.mark.timeout(1_800)
def test_materialize_from_each_page_fetches_fills_all_three_and_mends_what_is_red(
    agency: RunningAgency,
) -> None:
    chromium = require_chromium()
    workspaces = [it for it in agency.workspaces[6:12] if agency.key(it)][:3]
    rejected = workspaces[1]
    before = {it: agency.today - timedelta(days=150 + 20 * ASSETS.index(it)) for it in ASSETS}
    with open_page(chromium) as page:
        for asset in ASSETS:
            dates = days_between(before[asset] - timedelta(days=9), before[asset])
            agency.forget_calls()
            materialize(page, agency, asset, workspaces, dates)
            asked = {
                slug: sum(call["path"] == SERIES for call in calls)
                for slug, calls in agency.calls().items()
            }
            assert asked == dict.fromkeys(workspaces, 1), asset
            assert wrong_numbers(agency, workspaces, dates) == [], asset
            require_shown(page, agency, dates, green=30, red=0)

            materialize(page, agency, asset, workspaces, [agency.today])
            assert wrong_numbers(agency, workspaces, [agency.today]) == [], asset

        # A revoked key, mended by "Re-execute".
        day = agency.today - timedelta(days=230)
        agency.revoke(rejected)
        try:
            materialize(page, agency, "kpi_projections", workspaces, [day])
            require_shown(page, agency, [day], green=2, red=1)
            failed = next(it for it in agency.runs("FAILURE") if it.ends == {rejected})
        finally:
            agency.restore(rejected)
        page.goto(f"{agency.page.url}/runs/{failed.id}")
        button = page.get_by_role("button", name=re.compile("^Re-execute")).first
        button.wait_for(timeout=60_000)
        picture(page, "failed-run")
        button.click()
        agency.poll(
            lambda: any(it.parent == failed.id for it in agency.runs()), "the launch", _SECONDS
        )
        agency.poll(agency.is_at_rest, "the end of the run", _SECONDS)
        require_shown(page, agency, [day], green=3, red=0)
        assert wrong_numbers(agency, workspaces, [day]) == []

        # And by the dialog.
        days = [day - timedelta(days=6), day - timedelta(days=5)]
        agency.revoke(rejected)
        try:
            materialize(page, agency, "raw_bison_stats", workspaces, days)
            require_shown(page, agency, days, green=4, red=2)
        finally:
            agency.restore(rejected)
        materialize(page, agency, "client_metrics", workspaces, days, only_failed_and_missing=True)
        require_shown(page, agency, days, green=6, red=0)
        assert wrong_numbers(agency, workspaces, days) == []
        for view in ("overview", "events", "checks", "lineage"):
            page.goto(f"{agency.page.url}/assets/client_metrics?view={view}")
            page.wait_for_load_state("networkidle")
            picture(page, f"client_metrics-{view}")
