"""A viewer changes nothing, and neither does a form from elsewhere: every form is tried."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text
from starlette.routing import BaseRoute, Mount, Route

from kpi_pipeline.dashboard import app as dashboard
from kpi_pipeline.dashboard.app import create_app
from kpi_pipeline.dashboard.site import Site
from kpi_pipeline_tests.dashboard.browsing import browsing
from kpi_pipeline_tests.dashboard.rows import put_clients

EDITOR, READER = "an editor's password", "a reader's password"
FIELDS = {
    "from": "2026-03-01",
    "to": "2026-03-02",
    "month": "2026-03",
    "replies": "50",
    "emails": "",
    "check": "plausible",
    "hours": "4",
}


def paths_of_forms(routes: list[BaseRoute]) -> Iterator[str]:
    """The path of each POST route, for the client acme and the id 1."""
    for route in routes:
        if isinstance(route, Mount):
            yield from paths_of_forms(list(route.routes or []))
        elif isinstance(route, Route) and "POST" in (route.methods or ()):
            yield route.path.replace("{workspace}", "acme").replace("{id:int}", "1")


PATHS = sorted(paths_of_forms(list(dashboard._ROUTES)))


@pytest.fixture
def guarded(dashboard_site: Site, engine: Engine) -> Site:
    put_clients(engine, "acme")
    passwords = {"web_password": SecretStr(EDITOR), "web_reader_password": SecretStr(READER)}
    return replace(dashboard_site, settings=dashboard_site.settings.model_copy(update=passwords))


@contextmanager
def logged_in(of: Site, password: str) -> Iterator[httpx.Client]:
    with browsing(create_app(of)) as browser:
        browser.auth = ("", password)
        yield browser


def state(engine: Engine) -> list[object]:
    """All that forms change."""
    tables = ("clients", "client_targets", "target_changes", "action_requests", "alert_mutes")
    with engine.connect() as connection:
        return [connection.execute(text(f"SELECT * FROM {it}")).all() for it in tables]


def test_there_is_a_form_for_each_action() -> None:
    assert len(PATHS) >= 9
    assert all(not path.startswith("/api") for path in PATHS)


def test_a_viewer_sends_no_form_whatever_token_it_has(guarded: Site, engine: Engine) -> None:
    before = state(engine)
    with logged_in(guarded, READER) as viewer:
        for path in PATHS:
            answer = viewer.post(path, data={**FIELDS, "form_token": "x"})
            assert answer.status_code == 403, path
            page = viewer.get(path)
            assert page.status_code == 403 or f'action="{path}"' not in page.text, path
    assert state(engine) == before


def test_a_form_without_the_token_of_its_session_changes_nothing(
    guarded: Site, engine: Engine
) -> None:
    before = state(engine)
    with logged_in(guarded, EDITOR) as editor:
        for path in PATHS:
            for more in ({}, *({"form_token": it} for it in ("", "x", "ü", "0" * 64))):
                answer = editor.post(path, data={**FIELDS, **more})
                assert answer.status_code == 403, path
                assert "This form is from another session." in answer.text
    assert state(engine) == before


def test_a_form_of_another_web_page_changes_nothing(guarded: Site, engine: Engine) -> None:
    before = state(engine)
    elsewhere = {"Origin": "https://elsewhere.example"}
    with logged_in(guarded, EDITOR) as editor:
        own = editor.get("/clients/acme/targets").text
        token = own.split('name="form_token" value="')[1].split('"')[0]
        for path in PATHS:
            answer = editor.post(path, data={**FIELDS, "form_token": token}, headers=elsewhere)
            assert answer.status_code == 403, path
    assert state(engine) == before


def test_without_a_login_nothing_is_changed(guarded: Site, engine: Engine) -> None:
    before = state(engine)
    with browsing(create_app(guarded)) as stranger:
        for path in PATHS:
            assert stranger.post(path, data=FIELDS).status_code == 401, path
    assert state(engine) == before


def test_what_is_no_form_or_a_huge_one_is_answered_with_a_sentence(browse: httpx.Client) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    bodies = [(b"a=" + b"x" * 9000, 413), (b"a=%ff&\xff", 400), (b"&".join([b"a=1"] * 99), 400)]
    assert browse.post("/refresh", json={"form_token": "x"}).status_code == 415
    for body, status in bodies:
        answer = browse.post("/refresh", content=body, headers=form)
        assert answer.status_code == status
        assert "form" in answer.text


def test_a_viewer_sees_progress_and_the_history_of_targets(guarded: Site, engine: Engine) -> None:
    with logged_in(guarded, READER) as viewer:
        assert viewer.get("/requests").status_code == 200
        targets = viewer.get("/clients/acme/targets")
    assert targets.status_code == 200
    assert "Take back" not in targets.text
