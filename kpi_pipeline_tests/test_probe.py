"""What health checks of containers, and the supervisor, ask of a server."""

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from kpi_pipeline import probe
from kpi_pipeline.probe import parsed_address, problem_at, speaks_grpc


@pytest.fixture
def socket_path() -> Iterator[Path]:
    # The path of a Unix socket must be short.
    with tempfile.TemporaryDirectory(prefix="kpi-") as folder:
        yield Path(folder) / "socket"


def test_a_code_server_that_lets_others_connect_and_says_nothing_does_not_answer(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_ANSWER_SECONDS", 0.1)
    assert not speaks_grpc(socket_path), "there is no socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path))
        listener.listen()
        assert not speaks_grpc(socket_path), "as of a process that is paused"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert problem_at(f"grpc://127.0.0.1:{port}") is not None, "the same at a port"


def test_a_code_server_that_sends_settings_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(100)
                peer.sendall(bytes(9))

        thread = threading.Thread(target=answer)
        thread.start()
        assert problem_at(f"grpc://127.0.0.1:{listener.getsockname()[1]}") is None
        thread.join()


@contextmanager
def _answering(status: int) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.headers["Host"] == "localhost" else 421)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/healthz"
        finally:
            server.shutdown()
            thread.join()


def test_a_page_is_healthy_if_it_answers_200() -> None:
    with _answering(200) as address:
        assert problem_at(address) is None
    assert problem_at(address) == f"{address} does not answer: ConnectionRefusedError"
    with _answering(503) as address:
        assert problem_at(address) == f"{address} answers 503"


def test_an_address_that_is_none_is_an_error_and_not_a_healthy_server() -> None:
    with pytest.raises(ValueError, match="neither http"):
        problem_at("127.0.0.1:3000")


def test_a_code_server_listens_at_a_port_or_on_a_socket() -> None:
    assert parsed_address("0.0.0.0:4266") == ("0.0.0.0", 4266)
    assert parsed_address("/tmp/kpi-code-1:2/socket") == Path("/tmp/kpi-code-1:2/socket")
