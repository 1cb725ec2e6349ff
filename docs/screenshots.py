"""Takes the pictures of the documents again, from its own demo: `make screenshots`."""

import os
import tempfile
import time
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

from playwright.sync_api import Page, ViewportSize
from sqlalchemy import text

from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.orchestration.asset_checks.specs import LIGHT_CHECKS
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.services.dagster_page import RunStatus
from kpi_pipeline.services.playground import Playground, playground
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests import PROJECT_ROOT
from kpi_pipeline_tests.agency import ASSETS
from kpi_pipeline_tests.end_to_end.chromium import (
    find_chromium,
    open_dialog,
    open_page,
    pick_partition,
    show_grid,
)

_SANDBOX = {"clients": 26, "calls-per-second": 0, "latency": 0}
# As many as the bars on a client's page.
_DAYS = 90
_DAYS_OF_GRID = 36
_TALL: ViewportSize = {"width": 1400, "height": 1180}
_FIRST_TICKS_SECONDS = 45
_LOSE_ROWS = [
    text(f"DELETE FROM {table} WHERE workspace = :lost AND metric_date BETWEEN :day AND :day + 1")  # noqa: S608 - our own names
    for table in ("client_metrics", "kpi_projections")
]


def main() -> None:
    """Write the pictures to docs/images/."""
    executable = find_chromium()
    if executable is None:
        raise SystemExit("Install Debian's package chromium first.")
    with tempfile.TemporaryDirectory(prefix="kpi-shot-") as folder:
        os.environ |= {"KPI_ENV_FILE": "", "KPI_STATE_DIR": folder}
        settings = load_settings().model_copy(update={"web_port": 0, "dashboard_port": 0})
        with playground(settings, _SANDBOX, date(2020, 1, 1), has_dashboard=True) as play:
            today = play.app.today()
            dates = days_between(today - timedelta(days=_DAYS), today)
            _wait_for(play, play.page.launch(ASSETS, block_tags(play.grid, dates)))
            with open_page(executable) as page:
                _show_dashboard(page, f"{play.dashboard}")
            # By then, each schedule and sensor of the page has begun to tick.
            time.sleep(_FIRST_TICKS_SECONDS)
            # Any new event of the client would write a row again that only one table lacks.
            with play.app.engine.begin() as connection:
                for statement in _LOSE_ROWS:
                    connection.execute(statement, {"lost": play.grid[14], "day": dates[-6]})
            checks = [(key.asset_key.to_user_string(), key.name) for key in LIGHT_CHECKS]
            _wait_for(play, play.page.launch([], {}, checks))
            with open_page(executable) as page:
                show_grid(page, play.page.url, dates[-_DAYS_OF_GRID], dates[-1])
                pick_partition(page, dates[-4], play.grid[14])
                page.screenshot(path=_image("partition-grid"))
                _show_dialog(page, play.page.url, "raw_bison_stats", play.grid[2:5], dates[-11:-1])
                page.screenshot(path=_image("materialize"))
                _show_check(page, play.page.url, "client_metrics", "complete")
                page.screenshot(path=_image("failed-check"))


def _show_dashboard(page: Page, url: str) -> None:
    """Take the pictures of all clients, and of the first one among them."""
    page.set_viewport_size(_TALL)
    page.goto(url)
    page.screenshot(path=_image("dashboard"))
    page.locator("tbody th a").first.click()
    page.get_by_role("heading", name="What is known").wait_for()
    page.screenshot(path=_image("dashboard-client"))


def _show_dialog(
    page: Page, dagster: str, asset: str, workspaces: Sequence[str], dates: Sequence[date]
) -> None:
    """Open the dialog of the button Materialize, with these clients and dates chosen."""
    show_grid(page, dagster, dates[0], dates[-1], asset)
    open_dialog(page, workspaces, dates)


def _show_check(page: Page, dagster: str, asset: str, check: str) -> None:
    """Open the checks of an asset, with one of them, as the link of an alert does."""
    page.goto(f"{dagster}/assets/{asset}?view=checks&checkDetail={check}")
    page.get_by_text("Latest execution").first.wait_for(timeout=60_000)


def _wait_for(play: Playground, run_id: str) -> None:
    while play.page.status(run_id) is RunStatus.UNDER_WAY:
        time.sleep(0.3)


def _image(name: str) -> Path:
    return PROJECT_ROOT / "docs" / "images" / f"{name}.png"


if __name__ == "__main__":
    main()
