"""Dagster's page with a login, behind a proxy with TLS and a path prefix, in a real browser."""

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page
from pydantic import SecretStr
from sqlalchemy import URL

from kpi_pipeline_tests.end_to_end.chromium import open_page
from kpi_pipeline_tests.end_to_end.one_agency.test_screen import require_chromium
from kpi_pipeline_tests.end_to_end.running import RunningAgency, running_agency
from kpi_pipeline_tests.end_to_end.tls_proxy import tls_proxy

pytestmark = [pytest.mark.server, pytest.mark.browser, pytest.mark.long, pytest.mark.weekly]

OPERATOR, READER = "operators-password", "readers-password"
_RUNS = """{ runsOrError { ... on Runs { results { status assetSelection { path } } } } }"""


@pytest.fixture(scope="module")
def agency(
    postgres: URL, administer: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningAgency]:
    settings = {
        "web_password": SecretStr(OPERATOR),
        "web_reader_password": SecretStr(READER),
        "web_path_prefix": "/dagster",
    }
    folder = tmp_path_factory.mktemp("agency")
    with running_agency(postgres, administer, folder, settings=settings) as agency:
        yield agency


@pytest.fixture(scope="module")
def address(agency: RunningAgency, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a browser finds the page."""
    port = urlsplit(agency.page.url).port
    assert port is not None
    with tls_proxy(port, tmp_path_factory.mktemp("proxy")) as address:
        yield f"{address}/dagster"


@pytest.fixture
def page() -> Iterator[Page]:
    with open_page(require_chromium(), trusts_any_certificate=True) as page:
        page.set_default_timeout(120_000)
        yield page


def _log_in(page: Page, password: str) -> None:
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def _succeeded(agency: RunningAgency) -> bool:
    runs = agency.page.query(_RUNS, {})["runsOrError"]["results"]
    asked = [it["status"] for it in runs if {"path": ["client_registry"]} in it["assetSelection"]]
    return asked == ["SUCCESS"]


def test_an_operator_logs_in_materializes_an_asset_and_logs_out(
    agency: RunningAgency, address: str, page: Page
) -> None:
    requests: list[str] = []
    page.on("websocket", lambda it: requests.append(it.url))
    page.goto(f"{address}/assets/client_registry")
    _log_in(page, "not the password")
    page.get_by_text("The name or the password is wrong.").wait_for()
    _log_in(page, OPERATOR)
    # The login leads to the page that was asked for.
    page.wait_for_url("**/dagster/assets/client_registry*")
    page.get_by_role("button", name="Materialize").first.click()
    agency.poll(lambda: _succeeded(agency), "the run of client_registry")
    page.goto(f"{address}/runs")
    page.get_by_text("Success").first.wait_for()
    (cookie,) = page.context.cookies()
    assert cookie["name"].startswith("__Host-kpi_session_")
    assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Lax")
    assert cookie["path"] == "/", "the dashboard beside it has the same login"

    page.goto(f"{address}/login")
    page.get_by_text("You are logged in as operator (editor).").wait_for()
    page.get_by_role("button", name="Log out").click()
    page.get_by_label("Password").wait_for()
    # A copy of the cookie is worth nothing now.
    page.context.add_cookies([cookie])  # type: ignore[list-item]
    page.goto(f"{address}/runs")
    page.get_by_label("Password").wait_for()
    assert all(it.startswith(address.replace("https:", "wss:")) for it in requests)


def test_a_reader_sees_the_page_and_no_button_that_changes_something(
    agency: RunningAgency, address: str, page: Page
) -> None:
    errors: list[str] = []
    page.on("response", lambda it: errors.append(it.url) if it.status >= 400 else None)
    page.goto(f"{address}/assets/client_registry")
    _log_in(page, READER)
    button = page.get_by_role("button", name="Materialize").first
    button.wait_for()
    assert button.is_disabled()
    page.goto(f"{address}/assets/client_metrics?view=partitions")
    page.get_by_text("Missing", exact=False).first.wait_for()
    page.goto(f"{address}/runs")
    page.get_by_text("Runs").first.wait_for()
    assert errors == []
