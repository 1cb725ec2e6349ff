"""The claim to be the one daemon of a database, on a real PostgreSQL."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from dagster._daemon.types import DaemonHeartbeat
from sqlalchemy import URL, text

from kpi_pipeline.db.server.urls import for_dagster
from kpi_pipeline.orchestration.runtime.claim import Claim, ClaimRow, DaemonRunningError, parsed
from kpi_pipeline.orchestration.runtime.one_daemon import SHARED_CLAIM, DaemonClaim
from kpi_pipeline.orchestration.runtime.storage import RetryingRunStorage
from kpi_pipeline_tests.cli.running import wait_until

pytestmark = pytest.mark.server

# A holder that may be stopped while another one takes over; it ends when its input does.
_HOLDER = """
import sys
from kpi_pipeline.orchestration.runtime import one_daemon
from kpi_pipeline.orchestration.runtime.storage import RetryingRunStorage
storage = RetryingRunStorage.from_config_value(None, {"postgres_url": sys.argv[1]})
quick = {"renew_seconds": 0.1, "dead_after_seconds": 1.0, "silence_seconds": 1.0}
claim = one_daemon.DaemonClaim(storage, on_loss=one_daemon._end_process, **quick)
claim.take("kpi up", "daemon of the other process")
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def url(postgres: URL, administer: Callable[[str], None]) -> Iterator[str]:
    """A database of Dagster's, for the tests of this file."""
    name = f"one_daemon_{os.getpid()}"
    administer(f"CREATE DATABASE {name}")
    yield for_dagster(postgres.set(database=name))
    administer(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def open_storage(url: str) -> Iterator[Callable[[], RetryingRunStorage]]:
    """Opens the run storage as another process does; the database is empty before each test."""
    opened: list[RetryingRunStorage] = []

    def open_one() -> RetryingRunStorage:
        opened.append(RetryingRunStorage.from_config_value(None, {"postgres_url": url}))
        return opened[-1]

    with open_one().connect() as connection:
        connection.execute(text("TRUNCATE kvs, daemon_heartbeats"))
    yield open_one
    for storage in opened:
        storage.dispose()


@pytest.fixture
def storage(open_storage: Callable[[], RetryingRunStorage]) -> RetryingRunStorage:
    return open_storage()


@pytest.fixture
def claim_of(storage: RetryingRunStorage) -> Iterator[Callable[..., DaemonClaim]]:
    """Makes claims that are renewed ten times a second."""
    made: list[DaemonClaim] = []

    def make(**changed: Any) -> DaemonClaim:
        quick = {"renew_seconds": 0.1, "dead_after_seconds": 60.0, "silence_seconds": 1.0}
        made.append(DaemonClaim(storage, **(quick | changed)))
        return made[-1]

    yield make
    for claim in made:
        claim.release()


def stored(storage: RetryingRunStorage) -> Claim:
    found = parsed(ClaimRow(storage).read())
    assert found is not None
    return found


def beat(storage: RetryingRunStorage, daemon: str, seconds_ago: float = 0.0) -> None:
    """A heartbeat of a daemon whose storage knows no claims."""
    at = time.time() - seconds_ago
    with storage.connect() as connection:
        connection.execute(text("DELETE FROM daemon_heartbeats WHERE daemon_type = 'SENSOR'"))
    super(RetryingRunStorage, storage).add_daemon_heartbeat(DaemonHeartbeat(at, "SENSOR", daemon))


def refusal(claim: DaemonClaim, command: str = "kpi up", daemon: str | None = None) -> str:
    with pytest.raises(DaemonRunningError) as refused:
        claim.take(command, daemon)
    return str(refused.value)


@contextmanager
def holder(url: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the claim, and ends with the block."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", _HOLDER, url]
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "taken\n", process.communicate()[1]
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_daemon_is_refused_and_the_first_one_named(
    claim_of: Callable[..., DaemonClaim], storage: RetryingRunStorage
) -> None:
    first = claim_of()
    first.take("kpi up")
    first.announce("http://127.0.0.1:3000")
    assert stored(storage).is_alive(datetime.now(UTC))

    said: list[str] = []
    since = datetime.fromtimestamp(stored(storage).since, UTC)
    assert refusal(claim_of(say=said.append)) == (
        f"Dagster already works on this database: `kpi up`, process {os.getpid()} on "
        f"{socket.gethostname()}, since {since:%Y-%m-%d %H:%M} UTC, with its page at "
        "http://127.0.0.1:3000. Two daemons would execute each run twice. Use that one, or stop it "
        "first."
    )
    assert said == [
        f"Dagster worked on this database a moment ago: `kpi up`, process {os.getpid()} on "
        f"{socket.gethostname()}. Checking whether it still does, for 60 s at most …"
    ]


def test_a_claim_that_was_released_is_taken_at_once(
    claim_of: Callable[..., DaemonClaim], storage: RetryingRunStorage
) -> None:
    first = claim_of()
    first.take("kpi up")
    first.release()
    assert not stored(storage).is_alive(datetime.now(UTC))
    second = claim_of(dead_after_seconds=1e9)
    second.take("kpi backfill")
    assert stored(storage).command == "kpi backfill"


def test_the_claim_of_a_killed_process_is_taken_once_it_was_watched(
    claim_of: Callable[..., DaemonClaim], storage: RetryingRunStorage, url: str
) -> None:
    with holder(url) as process:
        process.kill()
        process.wait()
    # Its heartbeats are not those of a daemon that may be alive.
    beat(storage, "daemon of the other process")
    began = time.monotonic()
    claim_of(dead_after_seconds=1.0, silence_seconds=1e9).take("kpi up")
    assert 1.0 <= time.monotonic() - began < 10.0
    assert stored(storage).pid == os.getpid()
    assert storage.get_daemon_heartbeats() == {}


def test_the_claim_of_an_hour_ago_is_taken_without_watching_it(
    claim_of: Callable[..., DaemonClaim], storage: RetryingRunStorage
) -> None:
    first = claim_of(renew_seconds=1e6)
    first.take("kpi up")
    with storage.connect() as connection:
        connection.execute(
            text("UPDATE kvs SET value = (value::jsonb || '{\"renewed_at\": 1}')::text")
        )
    claim_of(dead_after_seconds=1e9).take("kpi up")


def test_of_many_that_start_at_once_exactly_one_becomes_the_daemon(
    claim_of: Callable[..., DaemonClaim], storage: RetryingRunStorage
) -> None:
    outcomes: list[str] = []

    def start() -> None:
        try:
            claim_of().take("kpi up")
            outcomes.append("taken")
        except DaemonRunningError:
            outcomes.append("refused")

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 7 + ["taken"]


def test_a_stopped_process_that_continues_ends_at_once_as_another_one_is_the_daemon(
    claim_of: Callable[..., DaemonClaim], url: str
) -> None:
    with holder(url) as process:
        process.send_signal(signal.SIGSTOP)
        claim_of(dead_after_seconds=1.0).take("kpi up")
        process.send_signal(signal.SIGCONT)
        assert process.wait(timeout=60) == 1
        assert process.stderr is not None
        error = process.stderr.read()
    assert f"Dagster already works on this database: `kpi up`, process {os.getpid()}" in error


def test_a_claim_that_another_process_took_is_lost_for_the_command_that_held_it(
    claim_of: Callable[..., DaemonClaim], storage: RetryingRunStorage
) -> None:
    first = claim_of()
    first.take("kpi up")
    first.require_held()
    with storage.connect() as connection:
        changed = """UPDATE kvs SET value = (value::jsonb || '{"holder": "x", "pid": 7}')::text"""
        connection.execute(text(changed))

    def lost() -> bool:
        try:
            first.require_held()
        except DaemonRunningError as error:
            return "process 7 on" in str(error)
        return False

    wait_until(lost, "the loss of the claim")
    first.release()
    assert stored(storage).holder == "x"
    assert not stored(storage).released


def test_a_row_that_is_lost_with_the_database_is_written_again(
    claim_of: Callable[..., DaemonClaim], storage: RetryingRunStorage
) -> None:
    first = claim_of()
    first.take("kpi up")
    with storage.connect() as connection:
        connection.execute(text("TRUNCATE kvs"))
    wait_until(lambda: bool(storage.get_cursor_values({"kpi/daemon"})), "the row")
    assert stored(storage).holder == first.environment[SHARED_CLAIM]
    first.require_held()


@pytest.mark.parametrize("clock_is_wrong_by", [-3600.0, 0.0, 20.0], ids=["ahead", "right", "late"])
def test_a_daemon_that_kpi_did_not_start_is_found_by_its_heartbeats(
    claim_of: Callable[..., DaemonClaim], storage: RetryingRunStorage, clock_is_wrong_by: float
) -> None:
    beat(storage, "a stock daemon", clock_is_wrong_by)

    def beat_again(_: str) -> None:
        threading.Timer(0.5, beat, (storage, "a stock daemon", clock_is_wrong_by)).start()

    error = refusal(claim_of(silence_seconds=30.0, say=beat_again))
    assert error.startswith("A Dagster daemon that `kpi` did not start works on this database")
    # The next one does not wait for the claim of the one that was refused.
    assert stored(storage).released


def test_a_daemon_that_was_stopped_a_moment_ago_is_waited_for_as_long_as_its_heartbeat_holds(
    claim_of: Callable[..., DaemonClaim], storage: RetryingRunStorage
) -> None:
    beat(storage, "a stock daemon", seconds_ago=58.0)
    said: list[str] = []
    began = time.monotonic()
    claim_of(silence_seconds=60.0, say=said.append).take("kpi up")
    assert 0.5 <= time.monotonic() - began < 30.0
    assert len(said) == 1
    assert said[0].startswith("A Dagster daemon that `kpi` did not start was running a moment ago.")


def test_heartbeats_from_long_ago_keep_nobody_waiting(
    claim_of: Callable[..., DaemonClaim], storage: RetryingRunStorage
) -> None:
    beat(storage, "a stock daemon", seconds_ago=61.0)
    claim_of(silence_seconds=60.0).take("kpi up")
    assert storage.get_daemon_heartbeats() == {}


def test_a_daemon_shares_the_claim_of_its_command_and_one_that_is_restarted_replaces_it(
    open_storage: Callable[[], RetryingRunStorage],
    claim_of: Callable[..., DaemonClaim],
    storage: RetryingRunStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parent = claim_of()
    parent.take("kpi up")
    holder_id = parent.environment[SHARED_CLAIM]
    monkeypatch.setenv(SHARED_CLAIM, holder_id)
    first = open_storage()
    first.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", "first"))
    assert stored(storage).daemon == "first"
    first.dispose()

    lost: list[str] = []
    killed = claim_of(on_loss=lost.append)
    killed.share(holder_id, "second")
    open_storage().add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", "third"))
    wait_until(lambda: bool(lost), "the end of the daemon before")
    assert stored(storage).daemon == "third"
    parent.require_held()


def test_a_daemon_whose_command_lost_the_claim_does_not_start(
    open_storage: Callable[[], RetryingRunStorage],
    claim_of: Callable[..., DaemonClaim],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claim_of().take("kpi up")
    monkeypatch.setenv(SHARED_CLAIM, "of another command")
    with pytest.raises(SystemExit):
        open_storage().add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", "it"))


def test_any_daemon_on_these_storages_takes_the_claim_with_its_first_heartbeat(
    open_storage: Callable[[], RetryingRunStorage],
    claim_of: Callable[..., DaemonClaim],
    storage: RetryingRunStorage,
) -> None:
    stock = open_storage()
    for kind in ("SENSOR", "SCHEDULER"):
        stock.add_daemon_heartbeat(DaemonHeartbeat(time.time(), kind, "stock"))
    assert (stored(storage).command, stored(storage).daemon) == ("a Dagster daemon", "stock")
    assert set(storage.get_daemon_heartbeats()) == {"SENSOR", "SCHEDULER"}
    stock.dispose()
    claim_of(dead_after_seconds=1e9).take("kpi up")


def test_a_daemon_on_these_storages_ends_before_it_works_where_another_one_does(
    open_storage: Callable[[], RetryingRunStorage],
    claim_of: Callable[..., DaemonClaim],
    caplog: pytest.LogCaptureFixture,
) -> None:
    claim_of().take("kpi up")
    stock = open_storage()
    for kind in ("SENSOR", "SCHEDULER"):
        with pytest.raises(SystemExit):
            stock.add_daemon_heartbeat(DaemonHeartbeat(time.time(), kind, "stock"))
    assert stock.get_daemon_heartbeats() == {}
    errors = [it.message for it in caplog.records if it.levelname == "ERROR"]
    assert len(errors) == 1
    assert errors[0].startswith("Dagster already works on this database: `kpi up`, process ")
