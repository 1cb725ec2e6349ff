"""Few connections for everything: a budget, idle ones given back, and refusals waited for."""

import logging
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.exc import OperationalError

from kpi_pipeline.db.server import pool, sessions
from kpi_pipeline.db.server.engine import open_engine, pooled_engine, require_reachable
from kpi_pipeline.db.server.slots import SLOTS_FOLDER, Slots, slots_of_installation
from kpi_pipeline.db.server.urls import for_dagster
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.database import storage_error
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.cli.running import wait_until

_HOLD = """
import sys
from pathlib import Path
from kpi_pipeline.db.server.slots import Slots
held = Slots(Path(sys.argv[1]), 1).take()
print("held", flush=True)
sys.stdin.read()
"""


def name_of(connections: str) -> dict[str, str]:
    return {"application_name": connections}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Slots:
    """Two connections for everything, and pools that give idle ones back after a moment."""
    slots = Slots(tmp_path / "connections", 2)
    for module in (pool, sessions):
        monkeypatch.setattr(module, "slots_of_installation", lambda: slots)
    monkeypatch.setattr(pool, "_PAUSE_SECONDS", 0.02)
    return slots


@pytest.fixture
def limited(administer: Callable[[str], None], database: URL) -> Iterator[URL]:
    """A role that may have one connection."""
    role = f"limited_{uuid.uuid4().hex[:12]}"
    administer(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 1")
    yield database.set(username=role)
    administer(f"DROP ROLE {role}")


def open_connections(engine: Engine, url: URL) -> int:
    statement = text("SELECT count(*) FROM pg_stat_activity WHERE usename = :role")
    with engine.connect() as connection:
        return int(connection.scalar(statement, {"role": url.username}) or 0)


def test_a_slot_is_held_by_one_connection_until_it_is_closed(tmp_path: Path) -> None:
    one, other = Slots(tmp_path, 2), Slots(tmp_path, 2)
    held = [one.take(0), other.take(0)]
    assert None not in held
    assert one.take(0.05) is None
    assert held[1] is not None
    held[1].free()
    assert one.take(0) is not None


def test_the_slot_of_a_killed_process_is_free(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        slots = Slots(tmp_path, 1)
        assert slots.take(0) is None
        process.kill()
        assert slots.take(30) is not None


def test_a_process_that_waits_makes_others_give_back(tmp_path: Path) -> None:
    slots, waiting = Slots(tmp_path, 1), Slots(tmp_path, 1)
    held = slots.take(0)
    assert held is not None
    assert not slots.are_wanted()
    thread = threading.Thread(target=waiting.take, args=(30,))
    thread.start()
    wait_until(slots.are_wanted, "somebody who waits", seconds=30, every=0.01)
    held.free()
    thread.join(30)
    assert not thread.is_alive()
    assert not slots.are_wanted()


def test_only_processes_of_one_installation_share_slots(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert slots_of_installation() is None
    monkeypatch.setenv(SLOTS_FOLDER, str(tmp_path / "connections"))
    assert slots_of_installation() is slots_of_installation() is not None
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv(SLOTS_FOLDER, str(file / "connections"))
    assert slots_of_installation() is None


def test_both_drivers_share_the_budget_and_idle_connections_go_to_who_needs_one(
    few: Slots, database: URL
) -> None:
    ours = [open_engine(database, pool_size=2) for _ in range(2)]
    dagsters = pooled_engine(for_dagster(database), 1, {})
    # Each takes the places that the ones before left idle.
    for _ in range(2):
        for engine in (*ours, dagsters):
            with engine.connect() as one, engine.connect() as two:
                assert one.scalar(text("SELECT 1")) == two.scalar(text("SELECT 1"))
                assert few.take(0) is None
    for engine in (*ours, dagsters):
        engine.dispose()
    assert None not in (few.take(0), few.take(0))


def test_a_connection_that_cannot_be_opened_keeps_no_slot(few: Slots, database: URL) -> None:
    engine = open_engine(database.set(database="nothing_here"))
    for _ in range(3):
        with pytest.raises(OperationalError):
            engine.connect()
    engine.dispose()
    assert None not in (few.take(0), few.take(0))


def test_an_idle_connection_is_given_back_and_opened_again_when_needed(
    engine: Engine, limited: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(pool, "_PAUSE_SECONDS", 0.02)
    idle = open_engine(limited)
    for _ in range(2):
        with idle.connect() as connection:
            pid = connection.scalar(text("SELECT pg_backend_pid()"))
            # One that is in use stays, however long.
            time.sleep(0.2)
            assert connection.scalar(text("SELECT pg_backend_pid()")) == pid
        wait_until(lambda: not open_connections(engine, limited), "its end", seconds=30, every=0.05)
    idle.dispose()


def test_a_disposed_pool_closes_what_is_given_back_later(engine: Engine, limited: URL) -> None:
    other = open_engine(limited)
    with other.connect() as connection:
        other.dispose()
        connection.execute(text("SELECT 1"))
    wait_until(lambda: not open_connections(engine, limited), "its end", seconds=30, every=0.05)


def test_a_refused_connection_is_waited_for_and_said(
    limited: URL, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    holder = create_engine(limited)
    held = holder.connect()
    threading.Timer(0.5, held.close).start()
    threading.Timer(0.5, holder.dispose).start()
    for engine in (open_engine(limited), pooled_engine(for_dagster(limited), 1, {})):
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        engine.dispose()
    assert "allows no further connection (connection" in caplog.text
    assert "too many connections for role" in caplog.text


def test_a_server_that_goes_on_refusing_is_named_with_what_we_need(limited: URL) -> None:
    holder = create_engine(limited)
    engine = open_engine(limited, refused_seconds=0.3)
    with holder.connect():
        with pytest.raises(KpiError, match=r"cannot be reached: .*too many connections for role"):
            require_reachable(engine, "KPI_DATABASE_URL")
        with pytest.raises(OperationalError) as error:
            engine.connect()
    holder.dispose()
    engine.dispose()
    said = str(storage_error(error.value, Settings()))
    assert said.startswith("The database allows no further connection: ")
    assert "together need 15 at most" in said


def test_a_session_that_the_host_ended_as_idle_costs_nothing(engine: Engine, database: URL) -> None:
    short = open_engine(database, settings={"idle_session_timeout": "50"})
    with short.connect() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
    gone = text("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = :pid)")

    def ended() -> bool:
        with engine.connect() as connection:
            return bool(connection.scalar(gone, {"pid": pid}))

    wait_until(ended, "the end of the session", seconds=30, every=0.05)
    with short.connect() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) != pid
    short.dispose()


def test_the_time_limit_of_the_host_ends_a_statement_with_a_sentence(database: URL) -> None:
    short = open_engine(database, settings={"statement_timeout": "50"})
    with pytest.raises(OperationalError) as error, short.connect() as connection:
        connection.execute(text("SELECT pg_sleep(10)"))
    short.dispose()
    said = str(storage_error(error.value, Settings()))
    assert said.startswith("The server ended a statement that took longer than it allows")
    assert os.linesep not in said
