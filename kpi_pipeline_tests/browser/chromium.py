"""Debian's chromium, driven by Playwright: screens are looked at as a person sees them."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import pytest
from playwright.sync_api import Page, sync_playwright

# Read on import: while a test runs, no KPI_ variable of the developer's is there.
_REQUIRED = os.environ.get("KPI_TEST_BROWSER") == "required"

# It looks for no updates and reports nothing: a machine without the internet has none of it.
_QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_chromium() -> str | None:
    """The path of the browser, if the machine has one."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def require_chromium() -> str:
    """The path of the browser; without one the test is skipped, or fails where it is required."""
    path = find_chromium()
    if path is None:
        assert not _REQUIRED, "there is no chromium"
        pytest.skip("needs Debian's package chromium")
    return path


@contextmanager
def open_page(executable: str) -> Iterator[Page]:
    """An empty page of a desktop's size."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=_QUIET)
        try:
            yield browser.new_page(viewport={"width": 1440, "height": 900})
        finally:
            browser.close()


def show_grid(page: Page, dagster: str, first: date, last: date) -> None:
    """Open the partition grid of client_metrics, narrowed down to the dates, and wait for it."""
    page.goto(f"{dagster}/assets/client_metrics?view=partitions")
    dates = page.get_by_placeholder("...")
    dates.wait_for(timeout=60_000)
    dates.fill(f"[{first}...{last}]")
    dates.press("Enter")
    page.get_by_text(str(last), exact=True).first.wait_for()


def pick_partition(page: Page, day: date, workspace: str) -> None:
    """Click a date and a workspace in the grid, and wait for the numbers of that partition."""
    page.get_by_text(str(day), exact=True).locator("visible=true").first.click()
    page.get_by_text(workspace, exact=True).locator("visible=true").first.click()
    page.get_by_text("positive_replies_mtd").wait_for()


def show_check(page: Page, dagster: str, asset: str, check: str) -> None:
    """Open the checks of an asset, with one of them, as the link of an alert does."""
    page.goto(f"{dagster}/assets/{asset}?view=checks&checkDetail={check}")
    page.get_by_text("Latest execution").first.wait_for(timeout=60_000)
