"""Users with names and passwords: the login, guessing, and what a password costs."""

from collections import Counter
from threading import Lock
from typing import Any

import anyio
import httpx
import pytest
from argon2 import PasswordHasher
from sqlalchemy import Engine, select

from kpi_pipeline.db.tables import web_users
from kpi_pipeline.web import passwords
from kpi_pipeline_tests.web.support import (
    HTML,
    OPERATOR,
    PASSWORD,
    SHARED,
    client_of,
    guard_of,
    guarded,
    log_in,
    put_user,
)

ANN = "ann the editor at /kpi/x"
# On the first field without a text.
FOCUS = " autofocus"


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
        log_in(browser, password, name).text.replace(f'value="{name}"', "").replace(FOCUS, "")
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
