"""The guard as a browser meets it, with the passwords of the settings: login, sessions, logout."""

from typing import Any

import anyio
import httpx
import pytest
from sqlalchemy import Engine, create_engine
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from kpi_pipeline.web.login import (
    Throttle,
    TooManyGuessesError,
    basic_credentials,
    bearer_token,
)
from kpi_pipeline_tests.web.support import (
    HTML,
    OPERATOR,
    READER,
    SHARED,
    Direct,
    client_of,
    cookie_of,
    guard_of,
    guarded,
    log_in,
)


@pytest.fixture
def browser(engine: Engine) -> httpx.Client:
    return guarded(engine, **SHARED)


def test_without_a_user_and_a_password_everybody_is_an_editor(engine: Engine) -> None:
    assert guarded(engine).get("/kpi/x").text == "local the editor at /kpi/x"


@pytest.mark.parametrize(
    ("password", "visitor"),
    [(OPERATOR, "operator the editor"), (READER, "reader the viewer")],
)
def test_a_person_who_opens_a_page_logs_in_and_is_led_to_it(
    browser: httpx.Client, password: str, visitor: str
) -> None:
    asked = browser.get("/kpi/runs?a=1&b=2", headers=HTML)
    assert asked.status_code == 303
    form = browser.get(asked.headers["location"])
    assert 'name="then" value="/kpi/runs?a=1&amp;b=2"' in form.text
    assert "<script" not in form.text
    policy = form.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy

    entered = log_in(browser, password, then="/kpi/runs?a=1&b=2")

    assert (entered.status_code, entered.headers["location"]) == (303, "/kpi/runs?a=1&b=2")
    flags = entered.headers["set-cookie"]
    assert "HttpOnly" in flags
    assert "SameSite=lax" in flags
    assert "Path=/;" in flags, "one login for both pages of a host"
    assert "Domain" not in flags
    assert "Secure" not in flags
    assert browser.get("/kpi/runs").text == f"{visitor} at /kpi/runs"
    name, _, role = visitor.split()
    assert f"You are logged in as {name} ({role})." in browser.get("/kpi/login").text


def test_the_cookie_of_a_page_with_tls_is_sent_over_tls_alone(engine: Engine) -> None:
    browser = guarded(engine, "https://localhost:3000", **SHARED)
    flags = log_in(browser).headers["set-cookie"]
    assert "Secure" in flags
    assert flags.startswith("__Host-"), "no other host of the domain can set it"
    assert browser.get("/kpi/x").text == "operator the editor at /kpi/x"
    assert "Secure" in browser.post("/kpi/logout").headers["set-cookie"]


@pytest.mark.parametrize(
    "then",
    ["https://evil.example/kpi/", "//evil.example", "/\\evil.example", "/other", "/kpi/\nx", ""],
)
def test_the_login_leads_to_this_page_alone(browser: httpx.Client, then: str) -> None:
    assert log_in(browser, then=then).headers["location"] == "/kpi/"


def test_a_foreign_page_cannot_log_a_person_in_or_out(browser: httpx.Client) -> None:
    log_in(browser)
    for path in ("/kpi/login", "/kpi/logout"):
        for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
            answer = browser.post(path, data={"password": READER}, headers=headers)
            assert answer.status_code == 403
    assert browser.get("/kpi/x").text == "operator the editor at /kpi/x"


def test_a_foreign_page_cannot_send_a_form_with_the_cookie_of_a_person(
    browser: httpx.Client,
) -> None:
    log_in(browser)
    for headers in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3001"},
        {"sec-fetch-site": "same-site"},
    ):
        assert browser.post("/kpi/x", data={"a": "b"}, headers=headers).status_code == 403
    own = {"origin": "http://localhost:3000", "sec-fetch-site": "same-origin"}
    assert browser.post("/kpi/x", data={"a": "b"}, headers=own).status_code == 200


@pytest.mark.parametrize("content", ["password=" + "x" * 9000, "password=%ff", ""])
def test_a_wrong_form_is_no_login(browser: httpx.Client, content: str) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    answer = browser.post("/kpi/login", content=content, headers=form)
    assert answer.status_code in (400, 403)
    assert "set-cookie" not in answer.headers
    assert browser.post("/kpi/login", json={"password": OPERATOR}).status_code == 400
    assert browser.put("/kpi/login").status_code == 405


def test_a_session_ends_with_the_logout_and_its_cookie_is_worth_nothing(
    browser: httpx.Client,
) -> None:
    log_in(browser)
    ((name, token),) = browser.cookies.items()
    assert browser.get("/kpi/x").status_code == 200
    assert browser.post("/kpi/logout").headers["location"] == "/kpi/login"
    assert not browser.cookies
    for spelling in (token, token + "=", f"!{token}"):
        answer = browser.get("/kpi/x", headers={"cookie": f"{name}={spelling}"})
        assert answer.status_code == 401


def test_another_password_ends_every_session_and_a_restart_ends_none(engine: Engine) -> None:
    browser = guarded(engine, **SHARED)
    log_in(browser, READER)
    cookie = cookie_of(browser)
    assert guarded(engine, **SHARED).get("/kpi/x", headers=cookie).status_code == 200
    changes: list[dict[str, Any]] = [
        {"web_password": "another-password"},
        {"web_reader_password": None},
    ]
    for changed in changes:
        after = guarded(engine, **SHARED | changed)
        assert after.get("/kpi/x", headers=cookie).status_code == 401


def test_programs_send_a_password_with_each_request(browser: httpx.Client) -> None:
    for name, password, visitor in (
        ("", OPERATOR, "operator the editor"),
        ("operator", OPERATOR, "operator the editor"),
        ("", READER, "reader the viewer"),
    ):
        answer = browser.get("/kpi/x", auth=(name, password))
        assert answer.text == f"{visitor} at /kpi/x"
    answer = browser.get("/kpi/x", auth=("ann", OPERATOR))
    assert answer.status_code == 401, "it is no password of a user"
    answer = browser.get("/kpi/x", auth=("", "wrong"))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic")
    assert "this page needs a password" in answer.json()["errors"][0]["message"]
    script = browser.get("/kpi/x", headers={"sec-fetch-mode": "cors"})
    assert not script.headers["www-authenticate"].startswith("Basic"), "it would open a dialog"


@pytest.mark.parametrize("header", ["Basic", "Basic %%%", "Basic /w==", "Basic a", "Basic YQ=="])
def test_a_damaged_header_is_a_wrong_password(header: str) -> None:
    assert basic_credentials(header) in (("", ""), ("a", ""))
    assert basic_credentials("Bearer abc") is None
    assert bearer_token(header) is None


def test_guessing_ends_after_ten_passwords_and_no_session_with_it(browser: httpx.Client) -> None:
    log_in(browser)
    transport = browser._transport
    assert isinstance(transport, Direct)
    guess = client_of(transport.app)
    for _ in range(5):
        assert log_in(guess, "wrong").status_code == 403
        assert guess.get("/kpi/x", auth=("", "wrong")).status_code == 401
    for answer in (log_in(guess), guess.get("/kpi/x", auth=("", OPERATOR))):
        assert answer.status_code == 429
        assert 500 < int(answer.headers["retry-after"]) <= 600
        assert "Too many wrong passwords: wait 10 min" in answer.text
    assert browser.get("/kpi/x").text == "operator the editor at /kpi/x"


def test_wrong_passwords_are_counted_by_address_and_name_and_together_and_forgotten() -> None:
    now = 1_000.0
    throttle = Throttle(lambda: now)

    def guess(address: str, count: int, name: str = "") -> None:
        for _ in range(count):
            throttle.require_few(address, name)
            throttle.count(address, name)

    guess("2001:db8::1", 6)
    guess("2001:db8::2", 4)
    with pytest.raises(TooManyGuessesError):
        throttle.require_few("2001:db8::3", "")
    throttle.require_few("2001:db8:0:1::1", "")
    now += 300
    for number in range(2):
        guess(f"192.0.2.{number}", 10, "ann")
    with pytest.raises(TooManyGuessesError):
        throttle.require_few("198.51.100.1", "ann")
    throttle.require_few("198.51.100.1", "bob")
    for number in range(2, 9):
        guess(f"192.0.2.{number}", 10)
    with pytest.raises(TooManyGuessesError) as all_of_them:
        throttle.require_few("198.51.100.1", "bob")
    assert all_of_them.value.seconds == 300
    now += 300
    throttle.require_few("198.51.100.1", "bob")
    throttle.require_few("2001:db8::3", "")


def test_an_answer_tells_browsers_to_be_careful(browser: httpx.Client) -> None:
    log_in(browser)
    for path in ("/kpi/x", "/kpi/login", "/kpi/healthz"):
        headers = browser.get(path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"


def test_a_stranger_learns_nothing_but_that_the_server_lives(browser: httpx.Client) -> None:
    assert browser.get("/kpi/healthz").text == "nobody at /kpi/healthz"
    answers = [
        browser.request(method, path, headers=headers)
        for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
        for path in ("/kpi/", "/kpi/api/clients", "/kpi/static/style.css", "/kpi/no-such", "/x")
        for headers in ({}, {"authorization": "Bearer kpi_" + "x" * 43}, {"cookie": "a=b"})
    ]
    assert {it.status_code for it in answers} == {401}
    assert len({(it.content, str(it.headers)) for it in answers}) <= 2, "of HEAD and the others"
    (text,) = {it.text for it in answers} - {""}
    for word in ("kpi_pipeline", "0.1", "operator", "ann", "users", "Dagster", "KPI_"):
        assert word not in text


def test_a_page_with_a_login_says_that_its_database_is_away() -> None:
    away = create_engine("postgresql+psycopg://kpi@127.0.0.1:1/kpi")
    for settings in (SHARED, {}, {"web_address": "10.0.0.5"}):
        browser = guarded(away, **settings)
        answer = browser.get("/kpi/x", headers={"cookie": "x=y"}, auth=("ann", "some-password"))
        assert answer.status_code == 503
        assert "the database with the users cannot be reached" in answer.text
        assert "127.0.0.1:1" not in answer.text
    assert log_in(guarded(away, **SHARED)).status_code == 503
    assert guarded(away, **SHARED).get("/kpi/healthz").status_code == 200


def test_a_stream_passes_part_by_part(engine: Engine) -> None:
    events: list[str] = []

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        async def parts() -> Any:
            for part in ("a", "b"):
                events.append(f"made {part}")
                yield part

        assert await Request(scope, receive).body() == b"asked"
        await StreamingResponse(parts())(scope, receive, send)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"asked", "more_body": False}

    async def send(message: Any) -> None:
        if message.get("body"):
            events.append(f"sent {message['body'].decode()}")

    scope = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": "/x",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "asgi": {"spec_version": "2.4"},
    }
    anyio.run(guard_of(engine, stream), scope, receive, send)
    assert events == ["made a", "sent a", "made b", "sent b"]
