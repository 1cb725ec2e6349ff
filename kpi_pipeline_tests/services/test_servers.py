"""What the supervisor asks of the embedded PostgreSQL."""

import threading
from pathlib import Path
from typing import cast

import pytest

from kpi_pipeline.db.server.embedded import EmbeddedServer
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.servers import EmbeddedPart
from kpi_pipeline_tests.cli.running import wait_until


class FakeServer:
    """An embedded server that starts when a test says so."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.may_start = threading.Event()
        self.error: Exception | None = None
        self.runs = True

    def is_running(self) -> bool:
        return self.runs

    def start(self) -> None:
        assert self.may_start.wait(20)
        if self.error is not None:
            raise self.error
        self.runs = True

    def part(self) -> EmbeddedPart:
        return EmbeddedPart(cast(EmbeddedServer, self))


@pytest.fixture
def server(tmp_path: Path) -> FakeServer:
    return FakeServer(tmp_path)


def test_the_embedded_server_is_started_while_the_supervisor_goes_on(server: FakeServer) -> None:
    part = server.part()
    assert part.problem() is None
    server.runs = False
    assert part.problem() == "has ended, or is paused"

    part.start()

    assert part.problem() is None, "it recovers from its crash"
    assert not part.answers()
    server.may_start.set()
    wait_until(part.answers, "its start")
    assert part.problem() is None
    server.runs = False
    assert part.problem() == "has ended, or is paused"


def test_an_embedded_server_that_does_not_start_says_why(server: FakeServer) -> None:
    server.runs = False
    server.error = KpiError("No space is left in the state folder.")
    part = server.part()
    part.start()
    server.may_start.set()
    part.stop()
    assert part.problem() == "could not be started: No space is left in the state folder."
