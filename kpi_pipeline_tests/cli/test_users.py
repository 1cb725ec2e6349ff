"""`kpi users`: users of the pages, their passwords, roles and API tokens."""

import getpass
import io
import sys
from datetime import timedelta

import pytest
from sqlalchemy import URL, Engine

from kpi_pipeline.db import web as stored
from kpi_pipeline.db.tables import web_api_tokens, web_sessions, web_users
from kpi_pipeline.web.passwords import new_session_token, token_hash, verify_password
from kpi_pipeline_tests.cli.running import Kpi, cells, rows_of

PASSWORD = "correct horse battery"

pytestmark = pytest.mark.usefixtures("configured")


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a person types, without an echo, when asked."""
    answers: list[str] = []
    monkeypatch.setattr(getpass, "getpass", lambda *_: answers.pop(0))
    return answers


def add(kpi: Kpi, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{PASSWORD}\n"))
    kpi("users", "add", *words, "--password-stdin").answer()


def test_a_user_is_added_with_a_password_that_is_asked_for_twice(
    kpi: Kpi, engine: Engine, typed: list[str]
) -> None:
    typed += [PASSWORD, PASSWORD]
    added = kpi("users", "add", "Ann", "--role", "editor")
    assert added.answer() == "ann may log in with the password as editor.\n"
    assert PASSWORD not in added.out + added.err
    (row,) = rows_of(engine, web_users)["web_users"]
    assert row["password_hash"].startswith("$argon2id$")
    assert verify_password(PASSWORD, row["password_hash"])
    assert cells(kpi("users", "list").answer(), "ann")[:4] == ["ann", "editor", "password", "0"]


def test_two_passwords_that_differ_are_asked_for_again(kpi: Kpi, typed: list[str]) -> None:
    typed += [PASSWORD, "another than that", PASSWORD, PASSWORD]
    kpi("users", "add", "ann", "--role", "viewer").answer()
    assert typed == []


@pytest.mark.parametrize("weak", ["short", "", "ends with a blank "])
def test_a_weak_password_is_refused_and_not_shown(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch, engine: Engine, weak: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{weak}\n"))
    error = kpi("users", "add", "ann", "--role", "viewer", "--password-stdin").error()
    assert error.startswith("Choose another password: it must have 12 to 200 printable characters")
    assert not weak or weak not in error
    assert rows_of(engine, web_users)["web_users"] == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ann smith", "'ann smith' is no name of a user"),
        ("<script>", "'<script>' is no name of a user"),
        ("a" * 65, "is no name of a user"),
        ("operator", "The pages call others operator"),
        ("local", "The pages call others local"),
    ],
)
def test_a_name_that_no_user_can_have_is_refused(kpi: Kpi, name: str, sentence: str) -> None:
    assert sentence in kpi("users", "add", name, "--role", "viewer", "--no-password").error()


def test_a_user_who_comes_by_a_proxy_has_no_password(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("users", "add", "ann@agency.example", "--role", "viewer", "--no-password")
    answer = kpi(*words).answer()
    assert "through the proxy" in answer
    assert "Set KPI_WEB_USER_HEADER" in answer
    assert cells(kpi("users", "list").answer(), "ann@agency.example")[2] == "proxy"
    assert "There is a user ann@agency.example already" in kpi(*words).error()


def test_a_new_password_and_another_role_end_the_sessions_of_the_user_alone(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch, engine: Engine
) -> None:
    def logged_in() -> set[str]:
        return {row["user_name"] for row in rows_of(engine, web_sessions)["web_sessions"]}

    def log_in() -> None:
        users = rows_of(engine, web_users)["web_users"]
        with engine.begin() as connection:
            for user in users:
                session = stored.Session(user["name"], user["role"], None)
                hashed = user["password_hash"]
                assert stored.begin_session(
                    connection, token_hash(new_session_token()), session, hour, hashed
                )

    hour = timedelta(hours=1)
    for name in ("ann", "bob"):
        add(kpi, monkeypatch, name, "--role", "viewer")
    log_in()
    monkeypatch.setattr(sys, "stdin", io.StringIO("another password\n"))
    assert "all sessions ended" in kpi("users", "password", "ann", "--password-stdin").answer()
    assert logged_in() == {"bob"}
    log_in()
    kpi("users", "role", "ann", "editor").answer()
    assert logged_in() == {"bob"}
    assert cells(kpi("users", "list").answer(), "ann")[1] == "editor"
    log_in()
    kpi("users", "remove", "ann").answer()
    assert logged_in() == {"bob"}
    assert "That was the last user" in kpi("users", "remove", "bob").answer()
    assert "There are no users" in kpi("users", "list").answer()
    for words in (("role", "ann", "viewer"), ("remove", "ann"), ("password", "ann")):
        last = () if words[0] != "password" else ("--no-password",)
        assert "There is no user ann" in kpi("users", *words, *last).error()


def test_a_token_is_shown_once_and_ends_when_it_is_revoked(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch, engine: Engine
) -> None:
    add(kpi, monkeypatch, "ann", "--role", "viewer")
    token = kpi("users", "token", "ann", "--label", "monthly [report]").answer().strip()
    assert token.startswith("kpi_")
    assert len(token) > 40
    (row,) = rows_of(engine, web_api_tokens)["web_api_tokens"]
    assert row["token_hash"] == token_hash(token)
    listed = kpi("users", "tokens").answer()
    assert token not in listed
    assert cells(listed, "ann")[1] == "monthly [report]"
    assert cells(listed, "ann")[3] == "–", "it was never used"
    again = kpi("users", "token", "ann", "--label", "monthly [report]").error()
    assert "ann has a token 'monthly [report]' already" in again
    assert "no API token 'other'" in kpi("users", "revoke", "ann", "--label", "other").error()
    kpi("users", "revoke", "ann", "--label", "monthly [report]").answer()
    assert rows_of(engine, web_api_tokens)["web_api_tokens"] == []
    assert "ann has no API token" in kpi("users", "revoke", "ann").error()
    assert "There is no user bob" in kpi("users", "token", "bob", "--label", "x").error()


def test_two_ways_to_give_a_password_contradict_each_other(kpi: Kpi, configured: URL) -> None:
    words = ("users", "password", "ann", "--password-stdin", "--no-password")
    assert "contradict each other" in kpi(*words).error()
