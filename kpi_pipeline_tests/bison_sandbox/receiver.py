"""A receiver of webhooks: a small HTTP server that keeps what it is sent."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LONGEST = 20.0
"""Seconds after which a test that waits fails, with what it sees instead."""


def wait_until(done: Callable[[], bool], seen: Callable[[], object]) -> None:
    """Poll until `done`; fail with what is `seen` after LONGEST."""
    deadline = time.monotonic() + LONGEST
    while not done():
        assert time.monotonic() < deadline, f"it never happened: {seen()}"
        time.sleep(0.01)


@dataclass(frozen=True)
class Received:
    """One request; `at` counts seconds."""

    at: float
    path: str
    content_type: str
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)


class Receiver(ThreadingHTTPServer):
    """Keeps its requests; `answer` returns the status for a path and its number of earlier ones.

    Requests to a path in `held` wait for their answer until `let_go`.
    """

    daemon_threads = True
    request_queue_size = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.answer: Callable[[str, int], int] = lambda path, before: 200
        self.received: list[Received] = []
        self.held: set[str] = set()
        self.under_way: Counter[str] = Counter()
        self._lock = threading.Condition()

    def take(self, request: Received) -> int:
        """Keep the request, and return the status of its answer."""
        with self._lock:
            before = len(self.at(request.path))
            self.received.append(request)
            self.under_way[request.path] += 1
            self._lock.wait_for(lambda: request.path not in self.held, LONGEST)
            self.under_way[request.path] -= 1
            return self.answer(request.path, before)

    def let_go(self) -> None:
        with self._lock:
            self.held.clear()
            self._lock.notify_all()

    def at(self, path: str) -> list[Received]:
        return [each for each in list(self.received) if each.path == path]

    def wait_for(self, requests: int) -> list[Received]:
        wait_until(lambda: len(self.received) >= requests, lambda: self.received)
        return list(self.received)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        content_type = self.headers.get("Content-Type", "")
        status = self.server.take(Received(time.monotonic(), self.path, content_type, text))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle(self) -> None:
        # The sandbox may stop while it waits for an answer.
        with suppress(ConnectionError):
            super().handle()


@contextmanager
def receiving() -> Iterator[Receiver]:
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield receiver
        finally:
            receiver.let_go()
            receiver.shutdown()
            thread.join()
