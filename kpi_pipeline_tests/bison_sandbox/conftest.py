import socket
from collections.abc import Iterator

import pytest

from kpi_pipeline_tests.bison_sandbox.receiver import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A server that keeps what webhooks bring to it."""
    with receiving() as running:
        yield running


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address of this machine at which nobody listens, and nobody else can begin to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
