"""Connections beyond the limits, and senders that write before they read, over real sockets."""

import json
import resource
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPResponse

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from kpi_pipeline.web import connections
from kpi_pipeline_tests.cli.running import wait_until
from kpi_pipeline_tests.gateway.support import serving

TOO_LARGE = b"POST /rejected HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
# Not an address of a proxy; Linux answers for all of 127.0.0.0/8.
STRANGER = "127.0.0.2"


@dataclass
class Served:
    """A server with pages that answer at once, without reading, or when a test lets them."""

    port: int = 0
    waiting: int = 0
    go_on: threading.Event = field(default_factory=threading.Event)

    def app(self) -> Starlette:
        async def page(_: Request) -> Response:
            return JSONResponse({"page": "first"})

        async def rejected(_: Request) -> Response:
            return JSONResponse({"error": "too large"}, 413, {"Connection": "close"})

        async def read(request: Request) -> Response:
            return JSONResponse({"read": len(await request.body())})

        def wait(_: Request) -> Response:
            self.waiting += 1
            assert self.go_on.wait(30)
            return JSONResponse({"page": "late"})

        async def large(_: Request) -> Response:
            return StreamingResponse(iter([b"x" * 1_000_000] * 50))

        return Starlette(
            routes=[
                Route("/", page),
                Route("/large", large),
                Route("/rejected", rejected, methods=["POST"]),
                Route("/read", read, methods=["POST"]),
                Route("/wait", wait),
            ]
        )

    def connected(self, sent: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
        """A connection on which so much was sent."""
        opened = socket.create_connection(("127.0.0.1", self.port), 30, (source, 0))
        opened.sendall(sent)
        return opened

    def status(self, path: str = "/") -> int:
        """The answer to a request on a connection of its own."""
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=30).status_code


@contextmanager
def served_with(**limits: float) -> Iterator[Served]:
    """The server with other limits; no address is exempt."""
    served = Served()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in limits.items():
            patch.setattr(connections, name, value)
        with serving(served.app(), unlimited=()) as http:
            assert http.base_url.port is not None
            served.port = http.base_url.port
            try:
                yield served
            finally:
                served.go_on.set()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with served_with() as served:
        yield served


def received_until_closed(opened: socket.socket) -> bytes:
    """What comes until the other end closes its side, which it must."""
    received = b""
    while part := opened.recv(65_536):
        received += part
    return received


def status_of(opened: socket.socket) -> int:
    """The status of the next answer, which is read to its end."""
    answer = HTTPResponse(opened)
    answer.begin()
    answer.read()
    return answer.status


def is_open(opened: socket.socket) -> bool:
    """Whether a request on the connection is answered."""
    try:
        opened.sendall(GET)
        return status_of(opened) == 200
    except ConnectionError:
        return False


@contextmanager
def files_allowed(count: int) -> Iterator[None]:
    """Have this process open so many files; both ends of each connection are here."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[0] < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("size", [1024 * 1024 + 1, 8 * 1024 * 1024])
def test_a_sender_that_writes_its_whole_body_first_sees_that_it_is_too_large(
    served: Served, size: int
) -> None:
    for _ in range(5):
        with closing(served.connected(TOO_LARGE % size + b"x" * size)) as opened:
            answer = received_until_closed(opened)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"error": "too large"}


def test_a_head_that_is_no_http_is_answered_before_the_connection_closes(served: Served) -> None:
    with closing(served.connected(b"NONSENSE\r\n\r\n" + b"x" * 1024 * 1024)) as opened:
        assert received_until_closed(opened).startswith(b"HTTP/1.1 400 ")


def test_a_rejected_body_without_an_end_is_cut_off() -> None:
    with (
        served_with(LINGER_BYTES=100_000) as served,
        closing(served.connected(TOO_LARGE % 10**12)) as opened,
    ):
        assert not all(can_send(opened, b"x" * 100_000) for _ in range(1_000))


@pytest.mark.waits
def test_a_rejected_sender_that_stays_silent_is_cut_off() -> None:
    with (
        served_with(LINGER_SECONDS=0.2) as served,
        closing(served.connected(TOO_LARGE % 10**6)) as opened,
    ):
        assert received_until_closed(opened).startswith(b"HTTP/1.1 413 ")
        # Its own side is open still.
        wait_until(lambda: not can_send(opened), "the end of the connection")


def can_send(opened: socket.socket, data: bytes = b"x") -> bool:
    try:
        opened.sendall(data)
    except OSError:
        return False
    return True


def test_a_rejected_sender_does_not_delay_the_stop() -> None:
    with ExitStack() as stack:
        with served_with(LINGER_SECONDS=600) as served:
            silent = stack.enter_context(closing(served.connected(TOO_LARGE % 100)))
            assert received_until_closed(silent).startswith(b"HTTP/1.1 413 ")
        wait_until(lambda: not can_send(silent), "the end of the connection")


def test_a_length_beside_chunks_makes_the_request_the_last_one(served: Served) -> None:
    """A proxy that goes by the other one hands us a request that it never saw."""
    head = (
        b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with closing(served.connected(head + b"4\r\nabcd\r\n0\r\n\r\n" + GET)) as opened:
        answer = received_until_closed(opened)
    assert answer.count(b"HTTP/1.1") == 1
    assert b"connection: close" in answer.lower()
    assert answer.endswith(b'{"read":4}')


@pytest.mark.parametrize(
    "length",
    [b"Content-Length: 4\r\n", b"Transfer-Encoding: chunked\r\n"],
    ids=["length", "chunks"],
)
def test_a_request_with_one_of_them_is_followed_by_others(served: Served, length: bytes) -> None:
    body = b"abcd" if b"4" in length else b"4\r\nabcd\r\n0\r\n\r\n"
    head = b"POST /read HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n"
    with closing(served.connected(head + body)) as opened:
        assert status_of(opened) == 200
        assert is_open(opened)


def test_a_thousand_and_five_idle_connections_lock_nobody_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        files_allowed(4_096),
        served_with(MAX_OF_ONE_ADDRESS=5_000) as served,
        ExitStack() as stack,
    ):
        idle = [stack.enter_context(closing(served.connected())) for _ in range(1_005)]
        assert [served.status() for _ in range(3)] == [200] * 3
        # Those that were idle for longest made room.
        assert not is_open(idle[0])
        assert is_open(idle[-1])
    assert caplog.text.count("Too many connections are open") == 1


def test_one_address_takes_no_more_than_its_share() -> None:
    with served_with(MAX_OF_ONE_ADDRESS=20) as served, ExitStack() as stack:
        before = stack.enter_context(closing(served.connected()))
        many = [stack.enter_context(closing(served.connected(b"", STRANGER))) for _ in range(25)]
        # They are accepted in this order, and the last has made the first five lose.
        assert is_open(many[-1])
        assert [is_open(it) for it in many] == [False] * 5 + [True] * 20
        assert is_open(before)


def test_a_proxy_has_no_limit_of_its_own() -> None:
    served = Served()
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(connections, "MAX_OF_ONE_ADDRESS", 5)
        http = stack.enter_context(serving(served.app(), unlimited=("127.0.0.0/8",)))
        served.port = http.base_url.port or 0
        many = [stack.enter_context(closing(served.connected())) for _ in range(10)]
        assert all(is_open(it) for it in many)


def test_those_without_a_request_lose_first_then_those_between_two_then_half_bodies() -> None:
    half = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1234"
    wait = GET.replace(b"/ ", b"/wait ")
    with served_with(MAX_CONNECTIONS=4) as served, ExitStack() as stack:

        def connected(sent: bytes) -> socket.socket:
            return stack.enter_context(closing(served.connected(sent)))

        slow, kept, unused = connected(half), connected(GET), connected(GET[:7])
        assert status_of(kept) == 200
        asking = [connected(wait)]
        wait_until(lambda: served.waiting == 1, "the request")
        for lost in (unused, kept, slow):
            asking.append(connected(wait))
            wait_until(lambda: served.waiting == len(asking), "the request")
            assert is_closed(lost)
        # Those that wait for an answer stay, however long that takes.
        assert status_of(connected(GET)) == 503
        served.go_on.set()
        assert all(status_of(it) == 200 for it in asking)


def is_closed(opened: socket.socket) -> bool:
    try:
        return received_until_closed(opened) == b""
    except ConnectionError:
        return True


def test_those_that_do_not_read_their_answers_lose_as_well() -> None:
    with served_with(MAX_CONNECTIONS=3) as served, ExitStack() as stack:
        for _ in range(3):
            sent = GET.replace(b"/ ", b"/large ")
            opened = stack.enter_context(closing(served.connected(sent)))
            # The answer has begun.
            assert opened.recv(1)
        assert served.status() == 200


@pytest.mark.parametrize("limit", ["MAX_CONNECTIONS", "MAX_OF_ONE_ADDRESS"])
def test_requests_beyond_the_limit_are_told_to_come_again(limit: str) -> None:
    with served_with(**{limit: 3}) as served, ThreadPoolExecutor(3) as threads:
        active = [threads.submit(served.status, "/wait") for _ in range(3)]
        wait_until(lambda: served.waiting == 3, "three requests")
        answer = httpx.get(f"http://127.0.0.1:{served.port}/", timeout=30)
        assert (answer.status_code, answer.headers["connection"]) == (503, "close")
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["error"].startswith("Try again later")
        served.go_on.set()
        assert [it.result() for it in active] == [200] * 3
        assert served.status() == 200
