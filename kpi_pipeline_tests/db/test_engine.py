import socket
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine, create_engine, inspect, make_url, text
from sqlalchemy.exc import IntegrityError, OperationalError

from kpi_pipeline.db.server.engine import (
    ensure_database,
    open_engine,
    require_reachable,
)
from kpi_pipeline.db.server.urls import parse_url
from kpi_pipeline.errors import KpiError

Administer = Callable[[str], None]


def unreachable(url: URL) -> str:
    engine = open_engine(url)
    try:
        with pytest.raises(KpiError) as error:
            require_reachable(engine, "KPI_DATABASE_URL")
    finally:
        engine.dispose()
    return str(error.value)


def over_tcp(host: str, port: int) -> URL:
    return make_url(f"postgresql+psycopg://kpi:hunter2@{host}:{port}/kpi")


@pytest.fixture
def closed_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture
def new_name(administer: Administer) -> Iterator[str]:
    name = f"kpi_new_{uuid.uuid4().hex}"
    yield name
    administer(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def weak_role(administer: Administer) -> Iterator[str]:
    name = f"weak_{uuid.uuid4().hex}"
    administer(f"CREATE ROLE {name} LOGIN PASSWORD 'correct'")
    yield name
    administer(f"DROP ROLE {name}")


@pytest.fixture
def guarded_role(postgres: URL, administer: Administer, weak_role: str) -> Iterator[str]:
    """A role that the server asks for its password; it trusts all others."""
    rules = Path(str(postgres.query["host"])) / "pg_hba.conf"
    trusting = rules.read_text()
    rules.write_text(f"local all {weak_role} scram-sha-256\n{trusting}")
    administer("SELECT pg_reload_conf()")
    try:
        _wait_until_refused(postgres.set(username=weak_role, password="wrong"))
        yield weak_role
    finally:
        rules.write_text(trusting)
        administer("SELECT pg_reload_conf()")


def _wait_until_refused(url: URL) -> None:
    engine = create_engine(url)
    deadline = time.monotonic() + 60
    while True:
        try:
            engine.connect().close()
        except OperationalError:
            return
        finally:
            engine.dispose()
        assert time.monotonic() < deadline, "the server did not take over its rules"
        time.sleep(0.01)


def test_a_database_that_answers_is_let_pass(engine: Engine) -> None:
    require_reachable(engine, "KPI_DATABASE_URL")


def test_a_server_that_does_not_run_is_named_with_the_reason(closed_port: int) -> None:
    said = unreachable(over_tcp("127.0.0.1", closed_port))
    shown = f"postgresql://kpi:***@127.0.0.1:{closed_port}/kpi"
    assert said.startswith(f"The database {shown} cannot be reached: ")
    assert said.endswith(
        "Connection refused. Check KPI_DATABASE_URL, and that the server runs and lets this user "
        "in."
    )
    assert "hunter2" not in said
    assert "\n" not in said


def test_a_host_that_does_not_exist_is_named_with_the_reason() -> None:
    said = unreachable(over_tcp("no-such-host.invalid", 5432))
    assert "failed to resolve host 'no-such-host.invalid'" in said
    assert "hunter2" not in said


def test_a_port_that_cannot_be_is_named() -> None:
    said = unreachable(over_tcp("127.0.0.1", 99_999))
    assert 'invalid port number: "99999"' in said
    assert "hunter2" not in said


def test_a_database_that_does_not_exist_is_named(postgres: URL) -> None:
    assert 'database "nothing_here" does not exist. Check' in unreachable(
        postgres.set(database="nothing_here")
    )


def test_a_wrong_password_is_refused_and_never_shown(postgres: URL, guarded_role: str) -> None:
    said = unreachable(postgres.set(username=guarded_role, password="hunter2"))
    assert f'password authentication failed for user "{guarded_role}"' in said
    assert "hunter2" not in said
    with pytest.raises(KpiError) as error:
        ensure_database(postgres.set(username=guarded_role, password="hunter2"))
    assert "password authentication failed" in str(error.value)
    assert "hunter2" not in str(error.value)


def test_the_right_password_is_let_in(postgres: URL, guarded_role: str) -> None:
    engine = open_engine(postgres.set(username=guarded_role, password="correct"))
    require_reachable(engine, "KPI_DATABASE_URL")
    engine.dispose()


def test_an_engines_own_text_hides_the_password() -> None:
    engine = open_engine(over_tcp("127.0.0.1", 5432))
    assert "hunter2" not in repr(engine)


def test_an_errors_text_carries_no_row(engine: Engine) -> None:
    statement = text(
        "INSERT INTO client_api_keys (workspace, encrypted_key) VALUES (:workspace, :secret)"
    )
    with pytest.raises(IntegrityError) as error, engine.begin() as connection:
        connection.execute(statement, {"workspace": "nobody", "secret": b"hunter2"})
    assert "hunter2" not in str(error.value)


def test_a_missing_database_is_created_once(postgres: URL, new_name: str) -> None:
    url = postgres.set(database=new_name)
    ensure_database(url)
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE kept (it int)"))
    ensure_database(url)
    assert inspect(engine).get_table_names() == ["kept"]
    engine.dispose()


def test_two_that_create_the_same_database_at_once_both_succeed(
    postgres: URL, new_name: str
) -> None:
    url = postgres.set(database=new_name)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(ensure_database, url) for _ in range(4)]:
            done.result(timeout=60)
    engine = open_engine(url)
    require_reachable(engine, "KPI_DATABASE_URL")
    engine.dispose()


def test_a_user_who_may_not_create_the_database_is_told_so(
    postgres: URL, new_name: str, weak_role: str
) -> None:
    url = postgres.set(database=new_name, username=weak_role, password="hunter2")
    with pytest.raises(KpiError) as error:
        ensure_database(url)
    said = str(error.value)
    assert said.startswith(f"The database postgresql://{weak_role}:***@/{new_name}")
    assert said.endswith(
        "cannot be created: permission denied to create database. "
        "Create it by hand, or give the user the right to."
    )


def test_an_address_that_the_driver_does_not_take_is_refused_with_a_sentence() -> None:
    url = parse_url("postgresql://u:hunter2@db..example.com/x", "KPI_DATABASE_URL")
    said = unreachable(url)
    assert "cannot be reached: " in said
    assert "Check KPI_DATABASE_URL" in said
    assert "hunter2" not in said
