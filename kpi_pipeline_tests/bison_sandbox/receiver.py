"""A receiver of webhooks: a small HTTP server that keeps what it is sent."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LONGEST = 20.0
"""Seconds after which a test that waits fails, with what it sees instead."""


@dataclass(frozen=True)
class Received:
    """One request; `at` counts seconds."""

    at: float
    path: str
    content_type: str
    text: str

    @property
    def body(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.text)
        return content

    @property
    def lead_id(self) -> int:
        lead_id: int = self.body["data"]["lead"]["id"]
        return lead_id


@dataclass
class Receiver:
    """Keeps its requests; `answer` returns the status for a path and its number of earlier ones.

    Requests to a path in `held` wait for their answer until the path is removed from it.
    """

    url: str = ""
    answer: Callable[[str, int], int] = lambda path, before: 200
    received: list[Received] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    under_way: dict[str, int] = field(default_factory=dict)
    lock: threading.Condition = field(default_factory=threading.Condition)

    def take(self, request: Received) -> int:
        with self.lock:
            before = sum(each.path == request.path for each in self.received)
            self.received.append(request)
            self.under_way[request.path] = self.under_way.get(request.path, 0) + 1
            self.lock.wait_for(lambda: request.path not in self.held, LONGEST)
            self.under_way[request.path] -= 1
            return self.answer(request.path, before)

    def let_go(self) -> None:
        with self.lock:
            self.held.clear()
            self.lock.notify_all()

    def at(self, path: str) -> list[Received]:
        return [each for each in list(self.received) if each.path == path]

    def wait_for(self, requests: int) -> list[Received]:
        wait_until(lambda: len(self.received) >= requests, lambda: self.received)
        return list(self.received)


def wait_until(done: Callable[[], bool], seen: Callable[[], object]) -> None:
    """Poll until `done`; fail with what is `seen` after LONGEST."""
    deadline = time.monotonic() + LONGEST
    while not done():
        assert time.monotonic() < deadline, f"it never happened: {seen()}"
        time.sleep(0.01)


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            content_type = self.headers.get("Content-Type", "")
            status = receiver.take(Received(time.monotonic(), self.path, content_type, text))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, format: str, *args: object) -> None:
            pass

        def handle(self) -> None:
            # The sandbox may stop while it waits for an answer.
            with suppress(ConnectionError):
                super().handle()

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 200

    with Server(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield receiver
        finally:
            receiver.let_go()
            server.shutdown()
            thread.join()
