"""The guard as a browser meets it: login, sessions, guessing and logout, without a server."""

import time
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from kpi_pipeline.settings import Settings
from kpi_pipeline.web.guard import Guard
from kpi_pipeline.web.login import Passwords, TooManyGuessesError, basic_password
from kpi_pipeline.web.sessions import Sessions
from kpi_pipeline.web.visitor import Role

OPERATOR, READER = "operators-password", "readers-pässword"
HTML = {"accept": "text/html"}


async def whoami(scope: Scope, receive: Receive, send: Send) -> None:
    answer = PlainTextResponse(f"{scope['user'].name} at {scope['path']}")
    await answer(scope, receive, send)


def guarded(folder: Path, base: str = "http://localhost:3000", **settings: Any) -> httpx.Client:
    values = {"web_password": OPERATOR, "web_reader_password": READER, **settings}
    described = Settings.model_validate({"state_dir": folder, **values})
    return client_of(Guard(whoami, described, "/kpi"), base)


class Direct(httpx.BaseTransport):
    """Calls an application without a network."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def call() -> httpx.Response:
            response = await httpx.ASGITransport(self.app).handle_async_request(request)
            content = await response.aread()
            return httpx.Response(response.status_code, headers=response.headers, content=content)

        return anyio.run(call)


def client_of(app: ASGIApp, base: str = "http://localhost:3000") -> httpx.Client:
    return httpx.Client(transport=Direct(app), base_url=base)


@pytest.fixture
def browser(tmp_path: Path) -> httpx.Client:
    return guarded(tmp_path)


def log_in(browser: httpx.Client, password: str = OPERATOR, then: str = "") -> Any:
    return browser.post("/kpi/login", data={"password": password, "then": then})


def test_without_a_password_everybody_is_an_editor(tmp_path: Path) -> None:
    browser = guarded(tmp_path, web_password=None, web_reader_password=None)
    assert browser.get("/kpi/x").text == "local at /kpi/x"
    assert list(tmp_path.iterdir()) == [], "no key is needed"


@pytest.mark.parametrize(("password", "role"), [(OPERATOR, "operator"), (READER, "reader")])
def test_a_person_who_opens_a_page_logs_in_and_is_led_to_it(
    browser: httpx.Client, password: str, role: str
) -> None:
    asked = browser.get("/kpi/runs?a=1&b=2", headers=HTML)
    assert asked.status_code == 303
    form = browser.get(asked.headers["location"])
    assert 'name="then" value="/kpi/runs?a=1&amp;b=2"' in form.text
    assert "<script" not in form.text
    policy = form.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy

    entered = log_in(browser, password, "/kpi/runs?a=1&b=2")

    assert (entered.status_code, entered.headers["location"]) == (303, "/kpi/runs?a=1&b=2")
    flags = entered.headers["set-cookie"]
    assert "HttpOnly" in flags
    assert "SameSite=lax" in flags
    assert "Path=/kpi/" in flags
    assert "Secure" not in flags
    assert browser.get("/kpi/runs").text == f"{role} at /kpi/runs"
    assert f"You are logged in as {role}." in browser.get("/kpi/login").text


def test_the_cookie_of_a_page_with_tls_is_sent_over_tls_alone(tmp_path: Path) -> None:
    browser = guarded(tmp_path, "https://localhost:3000")
    assert "Secure" in log_in(browser).headers["set-cookie"]


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
    assert browser.get("/kpi/x").text == "operator at /kpi/x"


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
    assert browser.post("/kpi/logout").headers["location"] == "/kpi/login"
    assert not browser.cookies
    for spelling in (token, token + "=", f"!{token}"):
        answer = browser.get("/kpi/x", headers={"cookie": f"{name}={spelling}"})
        assert answer.status_code == 401


def test_another_password_ends_every_session_and_a_restart_ends_none(tmp_path: Path) -> None:
    browser = guarded(tmp_path)
    log_in(browser, READER)
    ((name, token),) = browser.cookies.items()
    cookie = {"cookie": f"{name}={token}"}
    assert guarded(tmp_path).get("/kpi/x", headers=cookie).status_code == 200
    for changed in ({"web_password": "another-password"}, {"web_reader_password": None}):
        assert guarded(tmp_path, **changed).get("/kpi/x", headers=cookie).status_code == 401
    assert (tmp_path / "web.key").stat().st_mode & 0o777 == 0o600


def test_a_session_lasts_for_two_weeks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions(tmp_path, [SecretStr(OPERATOR)], 14 * 86_400)
    token = sessions.begin("reader")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 13.9 * 86_400)
    assert sessions.role(token) == "reader"
    monkeypatch.setattr(time, "time", lambda: now + 14.1 * 86_400)
    assert sessions.role(token) is None
    assert sessions.role(token[:-8] + "AAAAAAA=") is None


def test_programs_send_a_password_with_each_request(browser: httpx.Client) -> None:
    for name, password, role in (("", OPERATOR, "operator"), ("ann", READER, "reader")):
        assert browser.get("/kpi/x", auth=(name, password)).text == f"{role} at /kpi/x"
    answer = browser.get("/kpi/x", auth=("ann", "wrong"))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic")
    assert "this page needs a password" in answer.json()["errors"][0]["message"]
    script = browser.get("/kpi/x", headers={"sec-fetch-mode": "cors"})
    assert not script.headers["www-authenticate"].startswith("Basic"), "it would open a dialog"


@pytest.mark.parametrize("header", ["Basic", "Basic %%%", "Basic /w==", "Basic a", "Basic YQ=="])
def test_a_damaged_header_is_a_wrong_password(header: str) -> None:
    assert basic_password(header) == ""
    assert basic_password("Bearer abc") is None


def test_guessing_ends_after_ten_passwords_and_no_session_with_it(browser: httpx.Client) -> None:
    log_in(browser)
    transport = browser._transport
    assert isinstance(transport, Direct)
    guess = client_of(transport.app)
    for _ in range(5):
        assert log_in(browser, "wrong").status_code == 403
        assert guess.get("/kpi/x", auth=("", "wrong")).status_code == 401
    for answer in (log_in(browser), guess.get("/kpi/x", auth=("", OPERATOR))):
        assert answer.status_code == 429
        assert 500 < int(answer.headers["retry-after"]) <= 600
        assert "Too many wrong passwords: wait 10 min" in answer.text
    assert browser.get("/kpi/x").text == "operator at /kpi/x"


def test_wrong_passwords_are_counted_by_address_and_together_and_forgotten() -> None:
    now = 1_000.0
    passwords = Passwords({Role.EDITOR: SecretStr(OPERATOR)}, lambda: now)

    def guess(address: str, count: int) -> None:
        for _ in range(count):
            assert passwords.role("wrong", address) is None

    guess("2001:db8::1", 6)
    guess("2001:db8::2", 4)
    with pytest.raises(TooManyGuessesError):
        passwords.role(OPERATOR, "2001:db8::3")
    assert passwords.role(OPERATOR, "2001:db8:0:1::1") is Role.EDITOR
    now += 300
    for number in range(9):
        guess(f"192.0.2.{number}", 10)
    with pytest.raises(TooManyGuessesError) as all_of_them:
        passwords.role(OPERATOR, "198.51.100.1")
    assert all_of_them.value.seconds == 300
    now += 300
    assert passwords.role(OPERATOR, "198.51.100.1") is Role.EDITOR
    assert passwords.role(OPERATOR, "2001:db8::3") is Role.EDITOR


def test_a_stream_passes_part_by_part(tmp_path: Path) -> None:
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
    anyio.run(Guard(stream, Settings(state_dir=tmp_path), ""), scope, receive, send)
    assert events == ["made a", "sent a", "made b", "sent b"]
