"""Makes the README's picture anew, from a demo of its own: `make screenshots`."""

import os
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

from kpi_pipeline.business_days import days_between
from kpi_pipeline.cli.dagster_page import RunStatus
from kpi_pipeline.cli.playground import playground
from kpi_pipeline.partitions import rectangle_tags
from kpi_pipeline.settings import PROJECT_ROOT, load_settings
from kpi_pipeline_tests.browser.chromium import (
    find_chromium,
    open_page,
    pick_partition,
    show_grid,
)
from kpi_pipeline_tests.end_to_end.agency import ASSETS

_SANDBOX = {"clients": 26, "calls-per-second": 0, "latency": 0}
_DAYS = 35


def main() -> None:
    """Write docs/images/partition-grid.png."""
    executable = find_chromium()
    if executable is None:
        raise SystemExit("Install Debian's package chromium first.")
    with tempfile.TemporaryDirectory(prefix="kpi-shot-") as folder:
        os.environ |= {"KPI_ENV_FILE": "", "KPI_STATE_DIR": folder}
        settings = load_settings().model_copy(update={"web_port": 0})
        with playground(settings, _SANDBOX, date(2020, 1, 1)) as play:
            today = play.deployment.today()
            dates = days_between(today - timedelta(days=_DAYS), today)
            run_id = play.page.launch(ASSETS, rectangle_tags(play.grid, dates))
            while play.page.status(run_id) is RunStatus.UNDER_WAY:
                time.sleep(0.3)
            with open_page(executable) as page:
                show_grid(page, play.page.url, dates[0], dates[-1])
                pick_partition(page, dates[-4], play.grid[14])
                page.screenshot(path=_image("partition-grid"))


def _image(name: str) -> Path:
    return PROJECT_ROOT / "docs" / "images" / f"{name}.png"


if __name__ == "__main__":
    main()
