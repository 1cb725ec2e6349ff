"""Faults that hold a connection or end it, under both of uvicorn's readers of HTTP."""

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import httpx
import pytest

from kpi_pipeline_tests.bison_sandbox.receiver import wait_until
from kpi_pipeline_tests.bison_sandbox.running import Bison, Stage, bison_on, on_stage, options

USERS = "/api/users"


@pytest.fixture(scope="module", params=["h11", "httptools"])
def server(request: pytest.FixtureRequest) -> Iterator[Stage]:
    reader: Literal["h11", "httptools"] = request.param
    pytest.importorskip(reader)
    with on_stage(reader) as stage:
        yield stage


@pytest.fixture
def held(server: Stage) -> Iterator[Bison]:
    with bison_on(server, options()) as bison:
        yield bison


@contextmanager
def heard() -> Iterator[list[str]]:
    """What uvicorn logs meanwhile; a server that starts meanwhile would end the listening."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    listener = Listener()
    logger = logging.getLogger("uvicorn.error")
    logger.addHandler(listener)
    try:
        yield said
    finally:
        logger.removeHandler(listener)


@pytest.fixture
def log(server: Stage) -> Iterator[list[str]]:
    with heard() as said:
        yield said


def last_call(bison: Bison) -> dict[str, Any]:
    """The last call of the log, once it has ended."""
    wait_until(lambda: bison.calls()[-1]["answered_at"] is not None, bison.calls)
    return bison.calls()[-1]


def wait_until_struck(bison: Bison, times: list[int]) -> None:
    wait_until(lambda: bison.struck() == times, bison.struck)


def begun(bison: Bison, path: str = USERS) -> socket.socket:
    """A connection on which a call was sent; nothing of its answer is read."""
    url = httpx.URL(str(bison.http.base_url))
    connection = socket.create_connection((url.host, url.port or 80), timeout=10)
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bison.master_key}\r\n\r\n"
    connection.sendall(head.encode())
    return connection


def test_a_reset_breaks_the_answer_off_in_its_middle(held: Bison, log: list[str]) -> None:
    whole = held.get(USERS)
    held.fault("reset")
    with pytest.raises(httpx.RemoteProtocolError, match="peer closed connection"):
        held.get(USERS)
    with begun(held) as connection:
        received = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, half = received.partition(b"\r\n\r\n")
    assert f"content-length: {len(whole.content)}".encode() in head.lower()
    assert half == whole.content[: len(whole.content) // 2]
    call = last_call(held)
    assert (call["fault"], call["status"]) == ("reset", 200)
    assert log == []


def test_a_stall_gives_half_and_then_nothing_until_the_caller_leaves(
    held: Bison, log: list[str]
) -> None:
    whole = held.get(USERS)
    held.fault("stall")
    with begun(held) as connection:
        received = b""
        while not received.endswith(whole.content[: len(whole.content) // 2]):
            received += connection.recv(65_536)
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        assert held.calls()[-1]["answered_at"] is None
    assert last_call(held)["fault"] == "stall"
    assert log == []


def test_a_stall_may_end_with_the_connection(held: Bison, log: list[str]) -> None:
    held.fault("stall", seconds=0.2)
    started = time.monotonic()
    with pytest.raises(httpx.RemoteProtocolError, match="peer closed connection"):
        held.get(USERS)
    assert 0.2 <= time.monotonic() - started < 30
    assert log == []


def test_a_slow_call_is_answered_for_the_workspace_of_that_later_moment(held: Bison) -> None:
    old, new = (int(row["bison_workspace_id"]) for row in held.clients()[:2])
    held.switch(old)
    held.fault("slow", seconds=0.5)
    started = time.monotonic()
    with begun(held) as connection:
        wait_until_struck(held, [1])
        held.http.post("/sandbox/ui-user", json={"workspace_id": new})
        call = held.calls()[-1]
        assert (call["fault"], call["status"], call["answered_at"]) == ("slow", None, None)
        received = connection.recv(65_536)
    assert time.monotonic() - started >= 0.5
    assert received.startswith(b"HTTP/1.1 200 ")
    call = last_call(held)
    assert (call["fault"], call["status"], call["workspace_id"]) == ("slow", 200, new)


def test_a_slow_call_whose_caller_leaves_ends_and_does_nothing(held: Bison, log: list[str]) -> None:
    held.fault("slow", seconds=60, times=1)
    there = int(held.clients()[3]["bison_workspace_id"])
    here = held.http.get("/sandbox/ui-user").json()
    with pytest.raises(httpx.ReadTimeout):
        held.call(
            "POST",
            "/api/workspaces/v1.1/switch-workspace",
            json={"team_id": there},
            timeout=0.2,
        )
    call = last_call(held)
    assert (call["fault"], call["status"]) == ("slow", None)
    assert held.http.get("/sandbox/ui-user").json() == here
    assert log == []


def test_a_held_call_holds_up_no_other(held: Bison) -> None:
    held.fault("slow", seconds=60, times=1)
    held.fault("stall", times=1)
    with begun(held), begun(held):
        started = time.monotonic()
        wait_until_struck(held, [1, 1])
        assert held.get(USERS).status_code == 200
        assert time.monotonic() - started < 30


@pytest.mark.server
@pytest.mark.parametrize("reader", ["h11", "httptools"])
@pytest.mark.parametrize("kind", ["slow", "stall"])
def test_a_server_that_stops_cuts_held_calls_off_without_a_traceback(
    kind: str, reader: Literal["h11", "httptools"]
) -> None:
    pytest.importorskip(reader)
    with ExitStack() as meanwhile:
        with on_stage(reader) as stage, bison_on(stage, options()) as bison:
            bison.fault(kind, seconds=60)
            meanwhile.enter_context(begun(bison))
            wait_until_struck(bison, [1])
            log = meanwhile.enter_context(heard())
            stopping = time.monotonic()
        assert time.monotonic() - stopping < 30
    # The server's own line about what it cut off; a traceback would come beside it.
    assert len(log) == 1, log
    assert log[0].startswith("Cancel 1 running task")
