import socket
from collections.abc import Iterator

import pytest


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address of this machine at which nobody listens, and nobody else can begin to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
