import socket
from collections.abc import Iterator

import pytest


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address of this machine without a server, reserved for the test."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
