"""Users with names and passwords: login, guessing, and how sessions begin and end."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import anyio
import httpx
import pytest
from argon2 import PasswordHasher
from sqlalchemy import Engine, event, select, text, update
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from kpi_pipeline.db import web as stored
from kpi_pipeline.db.tables import web_sessions, web_users
from kpi_pipeline.web import passwords, watched
from kpi_pipeline.web.access import SESSION_LASTS
from kpi_pipeline.web.passwords import hash_password
from kpi_pipeline_tests.cli.running import wait_until
from kpi_pipeline_tests.web.conftest import Clock
from kpi_pipeline_tests.web.support import (
    HTML,
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


@pytest.mark.parametrize("role", ["editor", "viewer"])
def test_a_user_logs_in_by_name_and_password(engine: Engine, role: str) -> None:
    put_user(engine, role=role)
    browser = guarded(engine)
    assert browser.get("/kpi/x", headers=HTML).headers["location"].startswith("/kpi/login")
    form = browser.get("/kpi/login").text
    assert '<label for="name">Name</label>' in form
    assert "given a password alone" not in form, "the settings have none"
    for name in ("ann", "Ann ", "ANN"):
        assert log_in(browser, PASSWORD, name).status_code == 303
        assert browser.get("/kpi/x").text == f"ann the {role} at /kpi/x"


def test_a_wrong_name_and_a_wrong_password_say_the_same(engine: Engine) -> None:
    put_user(engine)
    put_user(engine, "bob", password=None)
    browser = guarded(engine, **SHARED)
    answers = {
        log_in(browser, password, name).text.replace(f'value="{name}"', "")
        for name, password in (
            ("ann", "wrong"),
            ("ann", OPERATOR),
            ("bob", PASSWORD),
            ("nobody", PASSWORD),
            ("a b", PASSWORD),
            ("", PASSWORD),
        )
    }
    (answer,) = answers
    assert "The name or the password is wrong." in answer
    assert not browser.cookies


def test_a_wrong_name_is_shown_and_cannot_bring_markup(engine: Engine) -> None:
    put_user(engine)
    shown = log_in(guarded(engine), "wrong", '"><script>alert(1)</script>').text
    assert "<script" not in shown
    assert "&quot;&gt;&lt;script&gt;" in shown


def test_a_wrong_name_costs_the_same_work_as_a_wrong_password(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs: list[str] = []

    class Counting(PasswordHasher):
        def verify(self, hash: Any, password: Any) -> Any:
            costs.append(str(hash).rsplit("$", 2)[0])
            return super().verify(hash, password)

    monkeypatch.setattr(passwords, "_hasher", Counting(1, 8, 1))
    put_user(engine)
    put_user(engine, "bob", password=None)
    browser = guarded(engine)
    for name in ("ann", "bob", "nobody", "no name"):
        assert log_in(browser, "wrong", name).status_code == 403
        assert browser.get("/kpi/x", auth=(name, "wrong")).status_code == 401
    assert len(costs) == 8
    assert set(costs) == {"$argon2id$v=19$m=8,t=1,p=1"}, "each with the same parameters"


def test_passwords_are_hashed_with_argon2id_and_the_memory_of_its_standard() -> None:
    hasher = PasswordHasher()
    assert (hasher.memory_cost, hasher.time_cost) >= (64 * 1024, 3)
    assert passwords.hash_password(PASSWORD).startswith("$argon2id$")


def test_two_passwords_at_most_are_hashed_at_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, now, most = Lock(), 0, 0

    class Measured(PasswordHasher):
        def verify(self, hash: Any, password: Any) -> Any:
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            try:
                return super().verify(hash, password)
            finally:
                with lock:
                    now -= 1

    monkeypatch.setattr(passwords, "_hasher", Measured(20, 1024, 1))
    put_user(engine)
    guard = guard_of(engine)

    async def guess_at_once() -> None:
        async with (
            httpx.AsyncClient(
                transport=httpx.ASGITransport(guard), base_url="http://localhost"
            ) as client,
            anyio.create_task_group() as group,
        ):
            for number in range(8):
                group.start_soon(lambda n: client.get("/kpi/x", auth=(f"user{n}", "wrong")), number)

    anyio.run(guess_at_once)
    assert most == 2


def test_guesses_at_once_are_counted_as_guesses_in_turn_are(engine: Engine) -> None:
    put_user(engine)
    guard = guard_of(engine)
    found: Counter[int] = Counter()

    async def guess_at_once() -> None:
        async def guess(number: int) -> None:
            answer = await client.get("/kpi/x", auth=("ann", f"wrong {number}"))
            found[answer.status_code] += 1

        transport = httpx.ASGITransport(guard)
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
            anyio.create_task_group() as group,
        ):
            for number in range(40):
                group.start_soon(guess, number)

    anyio.run(guess_at_once)
    # Of the two at once, one more may be compared than is allowed.
    assert found[401] in (10, 11)
    assert found[429] == 40 - found[401]


def test_guessing_a_name_from_many_addresses_ends_after_twenty(engine: Engine) -> None:
    put_user(engine)
    put_user(engine, "bob")
    guard = guard_of(engine)
    for number in range(20):
        guess = client_of(guard, peer=f"192.0.2.{number}")
        assert log_in(guess, "wrong", "ann").status_code == 403
    fresh = client_of(guard, peer="198.51.100.7")
    answer = log_in(fresh, PASSWORD, "ANN")
    assert answer.status_code == 429
    assert "Too many wrong passwords" in answer.text
    assert log_in(fresh, PASSWORD, "bob").status_code == 303


def test_a_proxy_is_not_blocked_for_what_one_browser_guesses(engine: Engine) -> None:
    put_user(engine)
    guard = guard_of(engine)
    proxy = client_of(guard)
    for _ in range(10):
        guess = {"x-forwarded-for": "192.0.2.1"}
        form = {"name": "ann", "password": "wrong"}
        assert proxy.post("/kpi/login", data=form, headers=guess).status_code == 403
    good = {"name": "ann", "password": PASSWORD}
    assert proxy.post("/kpi/login", data=good, headers=guess).status_code == 429
    other = {"x-forwarded-for": "192.0.2.2"}
    assert proxy.post("/kpi/login", data=good, headers=other).status_code == 303
    # Who is no proxy can't choose the address that is counted.
    stranger = client_of(guard, peer="203.0.113.5")
    codes = [
        stranger.post(
            "/kpi/login",
            data={"name": "cat", "password": "wrong"},
            headers={"x-forwarded-for": f"192.0.2.{number}"},
        ).status_code
        for number in range(100, 111)
    ]
    assert codes == [403] * 10 + [429]


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


def test_a_hash_of_other_parameters_is_renewed_at_the_login(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_user(engine)
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(2, 16, 1))
    browser = guarded(engine)
    assert log_in(browser, PASSWORD, "ann").status_code == 303
    with engine.connect() as connection:
        renewed = connection.scalar(select(web_users.c.password_hash))
    assert renewed is not None
    assert "m=16,t=2,p=1" in renewed
    assert browser.get("/kpi/x").text == ANN, "the session goes on"
    assert log_in(guarded(engine), PASSWORD, "ann").status_code == 303


def test_an_open_live_page_ends_soon_after_its_visitor_is_gone(
    engine: Engine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_user(engine)
    sent: list[bytes] = []
    monkeypatch.setattr(watched, "monotonic", clock)

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        async def parts() -> Any:
            for number in range(6):
                yield f"{number}"
                clock.seconds += watched.LOOK_UP_SECONDS / 2 + 1
                if number == 2:
                    with engine.begin() as connection:
                        stored.remove_user(connection, "ann")

        await StreamingResponse(parts())(scope, receive, send)

    guard = guard_of(engine, stream)
    browser = client_of(guard)
    log_in(browser, PASSWORD, "ann")

    async def read() -> None:
        cookie = cookie_of(browser)["cookie"].encode()
        scope = {
            "type": "http",
            "method": "GET",
            "scheme": "http",
            "path": "/kpi/live",
            "query_string": b"",
            "headers": [
                (b"host", b"localhost"),
                (b"cookie", cookie),
            ],
            "client": ("127.0.0.1", 1),
            "asgi": {"spec_version": "2.4"},
        }

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                sent.append(message["body"])

        await guard(scope, receive, send)

    anyio.run(read)
    assert sent[:3] == [b"0", b"1", b"2"]
    assert sent[-1] == b"", "it ends in order"
    assert b"5" not in sent
