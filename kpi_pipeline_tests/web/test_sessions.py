"""How the sessions of users begin and end."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import httpx
import pytest
from sqlalchemy import Engine, event, select, text, update
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kpi_pipeline.db import web as stored
from kpi_pipeline.db.tables import web_sessions, web_users
from kpi_pipeline.web import watched
from kpi_pipeline.web.access import SESSION_LASTS
from kpi_pipeline.web.passwords import hash_password
from kpi_pipeline_tests.cli.running import wait_until
from kpi_pipeline_tests.web.conftest import Clock
from kpi_pipeline_tests.web.support import (
    OPERATOR,
    PASSWORD,
    SHARED,
    client_of,
    cookie_of,
    guard_of,
    guarded,
    log_in,
    put_user,
)

ANN = "ann the editor at /kpi/x"
# What is found holds for five seconds.
SOON = 6


def logged_in(engine: Engine, **settings: Any) -> httpx.Client:
    put_user(engine)
    browser = guarded(engine, **settings)
    assert log_in(browser, PASSWORD, "ann").status_code == 303
    return browser


def is_let_in(engine: Engine, cookie: dict[str, str]) -> bool:
    """Whether a page that was started now takes the cookie."""
    return guarded(engine).get("/kpi/x", headers=cookie).status_code == 200


def is_waited_for(engine: Engine) -> bool:
    """Whether a transaction of this database waits for another."""
    waits = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    with engine.connect() as connection:
        return bool(connection.scalar(waits))


def test_a_login_has_a_token_of_its_own_whatever_cookie_was_there(engine: Engine) -> None:
    """Session fixation: the attacker's cookie is in the victim's browser before the login."""
    attacker = logged_in(engine)
    put_user(engine, "victim", "editor", PASSWORD)
    ((name, planted),) = attacker.cookies.items()
    for cookie in (planted, "chosen-by-the-attacker"):
        victim = guarded(engine)
        victim.cookies.set(name, cookie, domain="localhost.local", path="/")
        entered = log_in(victim, PASSWORD, "victim")
        assert cookie not in entered.headers["set-cookie"]
        thief = {"cookie": f"{name}={cookie}"}
        assert not is_let_in(engine, thief), "the old session ended with the new login"


def test_the_database_holds_no_token_and_no_password(engine: Engine) -> None:
    browser = logged_in(engine, **SHARED)
    other = guarded(engine, **SHARED)
    log_in(other)
    with engine.connect() as connection:
        rows = [*connection.execute(select(web_sessions)), *connection.execute(select(web_users))]
    stored_text = str(rows)
    assert len(rows) == 3
    for secret in (*browser.cookies.values(), *other.cookies.values(), PASSWORD, OPERATOR):
        assert secret not in stored_text


def test_a_stolen_cookie_is_worth_nothing_after_the_logout(engine: Engine) -> None:
    browser = logged_in(engine)
    assert browser.get("/kpi/x").text == ANN
    stolen = cookie_of(browser)
    assert is_let_in(engine, stolen)
    browser.post("/kpi/logout")
    assert browser.get("/kpi/x", headers=stolen).status_code == 401, "at once in this process"
    assert not is_let_in(engine, stolen)
    with engine.connect() as connection:
        assert connection.execute(select(web_sessions)).all() == []


@pytest.mark.parametrize("change", ["removed", "password", "role"])
def test_a_session_ends_when_its_user_changes(engine: Engine, clock: Clock, change: str) -> None:
    browser = logged_in(engine)
    cookie = cookie_of(browser)
    assert browser.get("/kpi/x").text == ANN
    with engine.begin() as connection:
        if change == "removed":
            stored.remove_user(connection, "ann")
        elif change == "password":
            stored.set_password(connection, "ann", hash_password("another password"))
        else:
            stored.set_role(connection, "ann", "viewer")
    put_user(engine, "bob")
    assert not is_let_in(engine, cookie)
    clock.seconds += SOON
    assert browser.get("/kpi/x").status_code == 401


def test_a_login_that_overlaps_a_new_password_begins_no_session(engine: Engine) -> None:
    put_user(engine)
    with engine.connect() as connection:
        user = stored.read_user(connection, "ann")
    assert user is not None
    session = stored.Session("ann", "editor", None)
    with ThreadPoolExecutor() as pool, engine.begin() as changing:
        stored.set_password(changing, "ann", hash_password("another password"))

        def begin() -> bool:
            with engine.begin() as connection:
                return stored.begin_session(
                    connection, "a hash", session, SESSION_LASTS, verified_hash=user[1]
                )

        began = pool.submit(begin)
        wait_until(lambda: is_waited_for(engine), "the login waits for the new password")
        changing.commit()
        assert began.result(timeout=30) is False


def test_a_session_lasts_for_two_weeks(engine: Engine) -> None:
    cookie = cookie_of(logged_in(engine))
    expires = web_sessions.c.expires_at
    with engine.begin() as connection:
        age = connection.scalar(select(expires - web_sessions.c.created_at))
        assert age is not None
        assert age.days == 14
        connection.execute(update(web_sessions).values(expires_at=expires - age * 0.99))
    assert is_let_in(engine, cookie)
    with engine.begin() as connection:
        connection.execute(update(web_sessions).values(expires_at=expires - age * 0.02))
    assert not is_let_in(engine, cookie)
    log_in(guarded(engine), PASSWORD, "ann")
    with engine.connect() as connection:
        assert len(connection.execute(select(web_sessions)).all()) == 1, "the old one is deleted"


def test_one_login_serves_both_pages_and_a_restart_ends_none(engine: Engine) -> None:
    cookie = cookie_of(logged_in(engine))
    other = guarded(engine, web_path_prefix="", **SHARED)
    assert other.get("/", headers=cookie).text == "ann the editor at /"


def test_a_request_takes_one_query_and_the_next_ones_none(engine: Engine, clock: Clock) -> None:
    browser = logged_in(engine)
    queries: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *it: queries.append(it[2]))
    for _ in range(3):
        assert browser.get("/kpi/x").text == ANN
    assert len(queries) == 1
    clock.seconds += SOON
    assert browser.get("/kpi/x").text == ANN
    assert len(queries) == 2


def test_users_who_are_added_while_a_page_runs_have_to_log_in(engine: Engine, clock: Clock) -> None:
    browser = guarded(engine)
    assert browser.get("/kpi/x").text == "local the editor at /kpi/x"
    put_user(engine)
    clock.seconds += SOON
    assert browser.get("/kpi/x").status_code == 401
    with engine.begin() as connection:
        stored.remove_user(connection, "ann")
    clock.seconds += SOON
    assert browser.get("/kpi/x").status_code == 401, "nobody is let in for the last user has gone"


def test_a_page_that_others_reach_lets_nobody_in_without_a_login(engine: Engine) -> None:
    for address in ("0.0.0.0", "10.0.0.5"):
        assert guarded(engine, web_address=address).get("/kpi/x").status_code == 401


def sent_by(engine: Engine, app: ASGIApp, kind: str) -> list[Message]:
    """What ann gets from an application that answers a request of that kind, before it ends."""
    put_user(engine)
    guard = guard_of(engine, app)
    browser = client_of(guard)
    log_in(browser, PASSWORD, "ann")
    scope = {
        "type": kind,
        "scheme": {"http": "http", "websocket": "ws"}[kind],
        "path": "/kpi/live",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"cookie", cookie_of(browser)["cookie"].encode())],
        "client": ("127.0.0.1", 1),
        "asgi": {"spec_version": "2.4"},
    }
    if kind == "http":
        scope["method"] = "GET"
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    anyio.run(guard, scope, receive, send)
    return sent


async def parts_for(engine: Engine, clock: Clock) -> AsyncIterator[str]:
    """Six parts of an answer over a minute; ann is removed after the third."""
    for number in range(6):
        yield f"{number}"
        clock.seconds += watched.LOOK_UP_SECONDS / 2 + 1
        if number == 2:
            with engine.begin() as connection:
                stored.remove_user(connection, "ann")


@pytest.fixture
def watch(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which the visitors of long answers are looked up, too."""
    monkeypatch.setattr(watched, "monotonic", clock)
    return clock


def test_an_open_live_page_ends_soon_after_its_visitor_is_gone(
    engine: Engine, watch: Clock
) -> None:
    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await StreamingResponse(parts_for(engine, watch))(scope, receive, send)

    sent = [it["body"] for it in sent_by(engine, stream, "http") if "body" in it]
    assert sent[:3] == [b"0", b"1", b"2"]
    assert sent[-1] == b"", "it ends in order"
    assert b"5" not in sent


def test_an_open_websocket_ends_soon_after_its_visitor_is_gone(
    engine: Engine, watch: Clock
) -> None:
    async def subscription(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        async for part in parts_for(engine, watch):
            await send({"type": "websocket.send", "text": part})

    opened, *sent, closed = sent_by(engine, subscription, "websocket")
    assert opened["type"] == "websocket.accept"
    assert [it["text"] for it in sent][:3] == ["0", "1", "2"]
    assert "5" not in [it["text"] for it in sent]
    assert (closed["type"], closed["code"]) == ("websocket.close", 1008)
