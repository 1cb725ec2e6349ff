"""The login of the dashboard: what a stranger gets from each of its pages, and Chromium's view."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from sqlalchemy import Engine
from starlette.routing import BaseRoute, Mount, Route

from kpi_pipeline.dashboard import app as dashboard
from kpi_pipeline.dashboard.app import create_app
from kpi_pipeline.dashboard.live import Live
from kpi_pipeline.dashboard.site import Site
from kpi_pipeline_tests.dashboard.browsing import browsing
from kpi_pipeline_tests.dashboard.live_support import OpenPage, served
from kpi_pipeline_tests.dashboard.rows import put_clients
from kpi_pipeline_tests.end_to_end.chromium import open_page
from kpi_pipeline_tests.end_to_end.one_agency.test_screen import require_chromium
from kpi_pipeline_tests.web.support import HTML, PASSWORD, put_user

CLIENT = "harbor-analytics"


def paths_of(routes: list[BaseRoute], above: str = "") -> Iterator[str]:
    """The path of each route, for the client and the id 1."""
    for route in routes:
        if isinstance(route, Mount):
            yield from paths_of(list(route.routes or []), above + route.path)
            yield f"{above}{route.path}/style.css"
        elif isinstance(route, Route):
            yield above + route.path.replace("{workspace}", CLIENT).replace("{id:int}", "1")


PATHS = sorted({*paths_of(list(dashboard._ROUTES))} - {"/healthz"})


@pytest.fixture
def site(dashboard_site: Site, engine: Engine) -> Site:
    """A dashboard with a client, an editor and a viewer."""
    put_clients(engine, CLIENT)
    put_user(engine)
    put_user(engine, "bob", "viewer")
    return dashboard_site


def test_a_stranger_gets_a_sentence_from_every_path_and_nothing_else(site: Site) -> None:
    known = {"content-length", "content-type", "cache-control", "www-authenticate"}
    known |= {"content-security-policy", "referrer-policy", "x-content-type-options"}
    assert len(PATHS) > 15
    with browsing(create_app(site)) as browser:
        for path in PATHS:
            for method in ("GET", "POST", "HEAD", "OPTIONS"):
                answer = browser.request(method, path, headers={"accept": "application/json"})
                assert answer.status_code == 401
                assert set(answer.headers) <= known, "no ETag, no version, no cookie"
                if method != "HEAD":
                    (error,) = answer.json()["errors"]
                    assert error["message"].startswith("Log in first")
            page = browser.get(path, headers=HTML)
            assert page.status_code == 303
            assert page.headers["location"].startswith("/login?then=")
            assert page.text == ""


def test_the_process_says_that_it_lives_to_anybody(site: Site) -> None:
    with browsing(create_app(site)) as browser:
        assert browser.get("/healthz").text == "alive\n"
        refused = browser.post("/healthz")
        assert (refused.status_code, refused.text) == (405, "Method Not Allowed\n")


@pytest.mark.parametrize("prefix", ["", "/kpis"])
def test_a_user_logs_in_and_out_at_the_path_of_the_dashboard(site: Site, prefix: str) -> None:
    update: dict[str, Any] = {
        "dashboard_path_prefix": prefix,
        "dashboard_url": "https://kpi.agency.example/kpis",
    }
    below = replace(site, settings=site.settings.model_copy(update=update))
    form = {"name": "bob", "password": PASSWORD, "then": f"{prefix}/"}
    with browsing(create_app(below), "https://kpi.agency.example") as browser:
        entered = browser.post(f"{prefix}/login", data=form)
        assert entered.headers["location"] == f"{prefix}/"
        page = browser.get(f"{prefix}/")
        assert page.status_code == 200
        assert "bob, viewer" in page.text
        assert f'action="{prefix}/logout"' in page.text
        assert browser.post(f"{prefix}/logout").headers["location"] == f"{prefix}/login"
        assert browser.get(f"{prefix}/").status_code == 303
        foreign = browser.get(f"{prefix}/", headers={"host": "evil.example"})
        assert foreign.status_code == 421


def test_a_dashboard_without_users_shows_no_login(dashboard_site: Site) -> None:
    with browsing(create_app(dashboard_site)) as browser:
        page = browser.get("/").text
        assert "Log out" not in page
        assert browser.get("/login").status_code == 404


def test_a_live_page_needs_the_login(site: Site) -> None:
    live = Live(site)
    with served(create_app(site, live), live.close) as (url, _):
        page = OpenPage(f"{url}/live")
        assert page.ended()
        assert page.status == 401
        answer = httpx.get(f"{url}/healthz")
        assert "server" not in answer.headers, "it names no program"


@pytest.fixture
def opened(site: Site) -> Iterator[tuple[Page, str]]:
    chromium = require_chromium()
    live = Live(site)
    with served(create_app(site, live), live.close) as (url, _), open_page(chromium) as page:
        yield page, url


@pytest.mark.browser
def test_a_person_logs_in_with_the_keyboard_and_anybody_can_read_the_form(
    opened: tuple[Page, str], tmp_path: Path
) -> None:
    page, url = opened
    messages: list[str] = []
    page.on("console", lambda it: messages.append(it.text))
    for scheme, width in (("light", 1280), ("dark", 360)):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_viewport_size({"width": width, "height": 800})
        page.goto(f"{url}/clients/{CLIENT}")
        expect(page.get_by_label("Name")).to_be_focused()
        page.keyboard.type("ann")
        page.keyboard.press("Tab")
        page.keyboard.type("not the password")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("The name or the password is wrong.")
        assert page.get_by_label("Name").input_value() == "ann"
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=tmp_path / f"{scheme}.png")
    expect(page.get_by_label("Password")).to_be_focused()
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{url}/clients/{CLIENT}")
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Lax", "/")
    assert page.evaluate("document.cookie") == "", "no script can read it"
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Password")).to_be_visible()
    page.goto(f"{url}/clients/{CLIENT}")
    expect(page.get_by_label("Password")).to_be_visible()
    # Chromium logs the status 403 of a wrong password.
    assert [it for it in messages if "403" not in it] == []
