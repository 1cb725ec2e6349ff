"""Debian's chromium, driven by Playwright, on Dagster's page."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date

from playwright.sync_api import Browser, Locator, Page, sync_playwright

# Without the internet, it must not look for updates.
QUIET = [
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


@contextmanager
def running_browser(executable: str) -> Iterator[Browser]:
    """The browser, which takes two seconds of processor time to start and to end."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=QUIET)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def new_page(browser: Browser, *, trusts_any_certificate: bool = False) -> Iterator[Page]:
    """An empty page of a desktop's size, with cookies of its own."""
    page = browser.new_page(
        viewport={"width": 1440, "height": 900}, ignore_https_errors=trusts_any_certificate
    )
    try:
        yield page
    finally:
        page.context.close()


@contextmanager
def open_page(executable: str, *, trusts_any_certificate: bool = False) -> Iterator[Page]:
    """A `new_page` in a browser of its own."""
    with (
        running_browser(executable) as browser,
        new_page(browser, trusts_any_certificate=trusts_any_certificate) as page,
    ):
        yield page


def show_grid(
    page: Page, dagster: str, first: date, last: date, asset: str = "client_metrics"
) -> None:
    """Open the partition grid of an asset, narrowed down to the dates, and wait for it."""
    page.goto(f"{dagster}/assets/{asset}?view=partitions")
    dates = page.get_by_placeholder("...")
    dates.wait_for(timeout=60_000)
    dates.fill(f"[{first}...{last}]")
    dates.press("Enter")
    page.get_by_text(str(last), exact=True).first.wait_for()


def open_dialog(page: Page, workspaces: Sequence[str], dates: Sequence[date]) -> Locator:
    """Press Materialize on the asset's page, and choose clients and dates in the dialog."""
    page.get_by_role("button", name="Materialize").first.click()
    dialog = page.get_by_role("dialog")
    field = dialog.get_by_placeholder("ex: ")
    field.fill(f"[{dates[0]}...{dates[-1]}]")
    field.press("Enter")
    dialog.get_by_text("Select a partition or create one").click()
    for workspace in workspaces:
        choice = page.get_by_role("menu").get_by_text(workspace, exact=True)
        choice.locator("visible=true").last.click()
    # A click elsewhere closes the list, which fades out.
    field.click()
    page.wait_for_timeout(1_000)
    return dialog


def pick_partition(page: Page, day: date, workspace: str) -> None:
    """Click a date and a workspace in the grid, and wait for the numbers of that partition."""
    page.get_by_text(str(day), exact=True).locator("visible=true").first.click()
    page.get_by_text(workspace, exact=True).locator("visible=true").first.click()
    page.get_by_text("positive_replies_mtd").wait_for()
