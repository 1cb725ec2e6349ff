"""Who is let in without the form: programs with API tokens, and users whom a proxy names."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, event, func, select, update

from kpi_pipeline.db import web as stored
from kpi_pipeline.db.tables import web_api_tokens
from kpi_pipeline.web.passwords import new_api_token, new_command_token, token_hash
from kpi_pipeline_tests.web.conftest import Clock
from kpi_pipeline_tests.web.support import (
    HTML,
    PASSWORD,
    SHARED,
    client_of,
    cookie_of,
    guard_of,
    guarded,
    log_in,
    put_user,
)

SOON = 6
# The header of a proxy that logs people in, and the setting that has it believed.
NAMED = "x-forwarded-user"
PROXY: dict[str, Any] = {"web_user_header": NAMED, "web_proxies": ("10.0.0.7", "10.1.0.0/16")}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def put_token(engine: Engine, name: str = "ann") -> str:
    token = new_api_token()
    with engine.begin() as connection:
        stored.add_token(connection, name, "reports", token_hash(token))
    return token


def last_use(engine: Engine) -> object:
    with engine.connect() as connection:
        return connection.scalar(select(web_api_tokens.c.last_used_at))


@pytest.mark.parametrize("role", ["editor", "viewer"])
def test_a_token_reads_as_its_user_and_changes_nothing(engine: Engine, role: str) -> None:
    put_user(engine, role=role)
    headers = bearer(put_token(engine))
    program = guarded(engine)
    assert program.get("/kpi/api/clients", headers=headers).text == (
        f"ann the {role} at /kpi/api/clients"
    )
    assert program.head("/kpi/api/clients", headers=headers).status_code == 200
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        answer = program.request(method, "/kpi/refresh", headers=headers)
        assert answer.status_code == 403
        assert "An API token reads, and changes nothing" in answer.text


@pytest.mark.parametrize("change", ["revoked", "user removed", "another token"])
def test_a_token_that_is_none_is_let_in_no_more(engine: Engine, clock: Clock, change: str) -> None:
    put_user(engine)
    put_user(engine, "bob")
    token = put_token(engine)
    program = guarded(engine)
    assert program.get("/kpi/x", headers=bearer(token)).status_code == 200
    with engine.begin() as connection:
        if change == "revoked":
            assert stored.revoke_tokens(connection, "ann", "reports") == ["reports"]
        elif change == "user removed":
            stored.remove_user(connection, "ann")
    if change == "another token":
        token = token[:-1] + ("a" if token[-1] != "a" else "b")
    clock.seconds += SOON
    for page in (program, guarded(engine)):
        answer = page.get("/kpi/x", headers=bearer(token))
        assert answer.status_code == 401
        assert "ann" not in answer.text


def test_a_token_in_the_place_of_a_cookie_or_password_lets_nobody_in(engine: Engine) -> None:
    put_user(engine)
    token = put_token(engine)
    browser = guarded(engine)
    log_in(browser, PASSWORD, "ann")
    ((name, session),) = browser.cookies.items()
    fresh = guarded(engine)
    assert fresh.get("/kpi/x", headers={"cookie": f"{name}={token}"}).status_code == 401
    assert fresh.get("/kpi/x", headers=bearer(session)).status_code == 401
    assert fresh.get("/kpi/x", auth=("ann", token)).status_code == 401
    assert fresh.get("/kpi/x", params={"token": token}).status_code == 401


def test_the_use_of_a_token_is_noted_once_a_minute_by_the_same_query(
    engine: Engine, clock: Clock
) -> None:
    put_user(engine)
    headers = bearer(put_token(engine))
    program = guarded(engine)
    program.get("/kpi/x", headers=headers)
    first = last_use(engine)
    assert first is not None
    queries: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *it: queries.append(it[2]))
    clock.seconds += SOON
    program.get("/kpi/x", headers=headers)
    assert len(queries) == 1
    assert last_use(engine) == first
    with engine.begin() as connection:
        earlier = func.now() - timedelta(seconds=61)
        connection.execute(update(web_api_tokens).values(last_used_at=earlier))
    clock.seconds += SOON
    program.get("/kpi/x", headers=headers)
    assert last_use(engine) > first  # type: ignore[operator]


def test_a_program_sends_the_name_and_password_of_a_user(engine: Engine, clock: Clock) -> None:
    put_user(engine, role="viewer")
    program = guarded(engine, **SHARED)
    for _ in range(3):
        assert program.get("/kpi/x", auth=("ann", PASSWORD)).text == "ann the viewer at /kpi/x"
    with engine.begin() as connection:
        stored.set_password(connection, "ann", None)
    clock.seconds += SOON
    assert program.get("/kpi/x", auth=("ann", PASSWORD)).status_code == 401


def test_a_command_of_ours_acts_with_a_session_for_which_it_needs_the_database(
    engine: Engine,
) -> None:
    put_user(engine)
    token = new_command_token()
    headers = bearer(token)
    assert guarded(engine).post("/kpi/graphql", headers=headers).status_code == 401
    with engine.begin() as connection:
        session = stored.Session(None, "editor", None)
        stored.begin_session(connection, token_hash(token), session, timedelta(minutes=1))
    command = guarded(engine)
    assert command.post("/kpi/graphql", headers=headers).text == "kpi the editor at /kpi/graphql"


def proxied(engine: Engine, peer: str = "10.0.0.7", **settings: Any) -> httpx.Client:
    """What comes from that address, to a page that believes a proxy's header."""
    return client_of(guard_of(engine, **PROXY | settings), peer=peer)


@pytest.mark.parametrize("peer", ["10.0.0.7", "10.1.2.3"])
def test_a_user_whom_a_trusted_proxy_names_needs_no_password(engine: Engine, peer: str) -> None:
    put_user(engine, "ann@agency.example", "viewer", password=None)
    browser = proxied(engine, peer)
    headers = {NAMED: "Ann@Agency.example", "x-forwarded-for": "192.0.2.1"}
    assert browser.get("/kpi/x", headers=headers).text == "ann@agency.example the viewer at /kpi/x"
    page = browser.get("/kpi/login", headers=headers).text
    assert "You are logged in as ann@agency.example (viewer)." in page
    assert "Log out" not in page, "the proxy would log in again"


@pytest.mark.parametrize("peer", ["10.0.0.8", "192.0.2.1", "127.0.0.1", ""])
def test_the_header_of_anybody_else_is_not_believed(engine: Engine, peer: str) -> None:
    put_user(engine)
    browser = proxied(engine, peer)
    for spoofed in (
        {NAMED: "ann"},
        {NAMED: "ann", "x-forwarded-for": "10.0.0.7"},
        {NAMED: "ann", "forwarded": "for=10.0.0.7", "x-real-ip": "10.0.0.7"},
        {"x_forwarded_user": "ann"},
    ):
        assert browser.get("/kpi/x", headers=spoofed).status_code == 401
        page = browser.get("/kpi/x", headers={**spoofed, **HTML})
        assert page.headers["location"].startswith("/kpi/login")


def test_no_header_is_believed_unless_the_setting_names_it(engine: Engine) -> None:
    put_user(engine)
    for settings in ({"web_user_header": None}, {"web_user_header": "x-auth-user"}):
        browser = proxied(engine, **settings)
        assert browser.get("/kpi/x", headers={NAMED: "ann"}).status_code == 401


@pytest.mark.parametrize("name", ["eve", "operator", "local", "kpi", "a b", "ann'--", "ä"])
def test_an_unknown_user_of_a_proxy_gets_a_sentence_and_no_session_of_another(
    engine: Engine, name: str
) -> None:
    put_user(engine)
    browser = proxied(engine, **SHARED)
    log_in(browser, PASSWORD, "ann")
    headers = [(NAMED.encode(), name.encode("latin-1"))]
    own = [(b"cookie", cookie_of(browser)["cookie"].encode())]
    for method, path in (("GET", "/kpi/x"), ("POST", "/kpi/x"), ("GET", "/kpi/login")):
        answer = browser.request(method, path, headers=[*headers, *own])
        assert answer.status_code == 403
        assert "who is no user of these pages" in answer.text
    basic = browser.get("/kpi/x", headers=headers, auth=("ann", PASSWORD))
    assert basic.status_code == 403


def test_the_user_of_a_proxy_goes_before_the_cookie_of_another(engine: Engine) -> None:
    put_user(engine)
    put_user(engine, "bob", "viewer", password=None)
    browser = proxied(engine)
    log_in(browser, PASSWORD, "ann")
    assert browser.get("/kpi/x", headers={NAMED: "bob"}).text == "bob the viewer at /kpi/x"
    assert browser.get("/kpi/x").text == "ann the editor at /kpi/x", "the proxy names nobody"


def test_a_proxy_that_only_adds_its_header_to_the_browsers_is_not_believed(
    engine: Engine,
) -> None:
    put_user(engine)
    put_user(engine, "bob", "viewer", password=None)
    answer = proxied(engine).get("/kpi/x", headers=[(NAMED, "ann"), (NAMED, "bob")])
    assert answer.status_code == 403
    assert "names more than one user" in answer.text


def test_a_user_of_a_proxy_is_gone_soon_after_the_removal(engine: Engine, clock: Clock) -> None:
    put_user(engine, password=None)
    browser = proxied(engine)
    assert browser.get("/kpi/x", headers={NAMED: "ann"}).status_code == 200
    with engine.begin() as connection:
        stored.remove_user(connection, "ann")
    clock.seconds += SOON
    assert browser.get("/kpi/x", headers={NAMED: "ann"}).status_code == 403


def test_a_foreign_page_cannot_act_as_the_user_of_a_proxy(engine: Engine) -> None:
    put_user(engine)
    foreign = {NAMED: "ann", "origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    assert proxied(engine).post("/kpi/x", headers=foreign).status_code == 403
