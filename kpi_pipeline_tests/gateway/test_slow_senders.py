"""Slow and endless senders are cut off and block no other."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from select import select
from typing import Any

import pytest
from sqlalchemy import URL, text

from kpi_pipeline.gateway import webhooks
from kpi_pipeline.web import connections
from kpi_pipeline_tests.databases import another_database
from kpi_pipeline_tests.gateway.support import Gateway, encoded, in_thread, lead

pytestmark = pytest.mark.waits

# Long enough for regular senders on a busy machine.
TIME_LIMIT = 0.9


@pytest.fixture(scope="module")
def hurried(postgres: URL) -> Iterator[Gateway]:
    """A gateway with short time limits."""
    with pytest.MonkeyPatch.context() as patch, another_database(postgres) as url:
        patch.setattr(connections, "HEAD_SECONDS", TIME_LIMIT)
        patch.setattr(webhooks, "BODY_SECONDS", TIME_LIMIT)
        with in_thread(url) as gateway:
            yield gateway


def opened_with(gateway: Gateway, beginning: str) -> socket.socket:
    """A connection on which so much was sent."""
    port = gateway.http.base_url.port
    assert port is not None
    opened = socket.create_connection(("127.0.0.1", port), timeout=60)
    opened.sendall(beginning.encode())
    return opened


def stored(gateway: Gateway) -> list[dict[str, Any]]:
    return gateway.rows("SELECT body FROM webhook_events ORDER BY id")


def head(gateway: Gateway) -> str:
    """The head of a delivery whose body has a hundred bytes."""
    return f"POST {gateway.path} HTTP/1.1\r\nHost: gateway\r\nContent-Length: 100\r\n\r\n"


def received_until_closed(opened: socket.socket) -> bytes:
    """What comes until the other end closes the connection, which it must."""
    received = b""
    while part := opened.recv(65_536):
        received += part
    return received


def test_a_body_that_stops_half_way_is_rejected_and_not_stored(hurried: Gateway) -> None:
    before = stored(hurried)
    with closing(opened_with(hurried, head(hurried) + '{"event": ')) as opened:
        answer = received_until_closed(opened)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not arrive within 0.9 seconds" in answer
    assert b"connection: close" in answer.lower()
    assert stored(hurried) == before


def answer_to_a_trickle(gateway: Gateway) -> bytes:
    """The answer to a sender of one byte now and then."""
    with closing(opened_with(gateway, head(gateway))) as opened:
        while not select([opened], [], [], TIME_LIMIT / 5)[0]:
            opened.sendall(b"x")
        return received_until_closed(opened)


def test_a_body_that_trickles_in_is_rejected(hurried: Gateway) -> None:
    before = stored(hurried)
    assert answer_to_a_trickle(hurried).startswith(b"HTTP/1.1 408 ")
    assert stored(hurried) == before


def test_a_sender_that_writes_too_large_a_body_before_it_reads_sees_413(hurried: Gateway) -> None:
    size = webhooks.MAX_BODY_BYTES + 1
    beginning = head(hurried).replace("100", str(size))
    with closing(opened_with(hurried, beginning + "x" * size)) as opened:
        answer = received_until_closed(opened)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"A body may have at most 1048576 bytes" in answer


def test_fifty_senders_of_half_a_head_are_cut_off_while_others_are_answered(
    hurried: Gateway,
) -> None:
    before = len(stored(hurried))
    with ExitStack() as stack, ThreadPoolExecutor(50) as threads:
        slow = [opened_with(hurried, head(hurried)[:40]) for _ in range(50)]
        for opened in slow:
            stack.enter_context(closing(opened))
        ends = [threads.submit(received_until_closed, it) for it in slow]
        answers = [hurried.post(encoded(lead())) for _ in range(20)]
        assert [answer.status_code for answer in answers] == [200] * 20
        # Not a word was answered to those that sent nothing whole.
        assert {end.result() for end in ends} == {b""}
    assert len(stored(hurried)) == before + 20


@pytest.mark.parametrize("beginning", ["", "POST /"], ids=["nothing", "a few bytes"])
def test_a_connection_without_a_whole_request_is_closed(hurried: Gateway, beginning: str) -> None:
    with closing(opened_with(hurried, beginning)) as opened:
        assert received_until_closed(opened) == b""


def test_a_slow_second_request_on_a_kept_connection_is_cut_off(hurried: Gateway) -> None:
    with closing(HTTPConnection(hurried.http.base_url.netloc.decode(), timeout=60)) as kept:
        kept.request("POST", hurried.path, encoded(lead()))
        answer = kept.getresponse()
        assert (answer.status, answer.will_close) == (200, False)
        answer.read()
        kept.sock.sendall(head(hurried)[:40].encode())
        assert received_until_closed(kept.sock) == b""


def test_a_kept_connection_may_idle_between_two_deliveries(hurried: Gateway) -> None:
    with closing(HTTPConnection(hurried.http.base_url.netloc.decode(), timeout=60)) as kept:
        for rest in (2.5 * TIME_LIMIT, 0):
            kept.request("POST", hurried.path, encoded(lead()))
            answer = kept.getresponse()
            assert (answer.status, answer.will_close) == (200, False)
            answer.read()
            time.sleep(rest)


def test_a_sender_that_waits_for_its_answer_is_not_cut_off(hurried: Gateway) -> None:
    with ThreadPoolExecutor(1) as thread:
        with hurried.engine.begin() as connection:
            connection.execute(text("LOCK TABLE webhook_events IN EXCLUSIVE MODE"))
            answer = thread.submit(hurried.post, encoded(lead()))
            time.sleep(1.1 * TIME_LIMIT)
            assert not answer.done()
        assert answer.result().status_code == 200


def test_no_log_shows_what_senders_send(hurried: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    with closing(opened_with(hurried, f"NONSENSE {hurried.path}\r\n\r\n")) as opened:
        assert received_until_closed(opened).startswith(b"HTTP/1.1 400 ")
    with closing(opened_with(hurried, head(hurried) + "{")):
        # Gone before the body was whole.
        pass
    assert hurried.post(encoded(lead())).status_code == 200
    assert hurried.secrets["main"] not in caplog.text
    assert "Traceback" not in caplog.text
