"""A PostgreSQL of a test's own, which it may stop and start while others work on it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, create_engine, text

from kpi_pipeline.db.server.embedded import EmbeddedServer, embedded_server
from kpi_pipeline_tests.guard import RUN, prepare_server


class RestartableServer:
    """The server at `url`."""

    def __init__(self, url: URL, server: EmbeddedServer) -> None:
        self.url = url
        self._server = server

    def stop(self) -> None:
        """Break every connection at once, as a crash does: in mid-statement, without a shutdown."""
        self._server.stop(crash=True)

    def start(self) -> None:
        """Start it again, where it was; return when it lets users in."""
        self._server.start()

    def administer(self, statement: str) -> None:
        """Do one statement as the superuser."""
        engine = create_engine(self.url, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()


@contextmanager
def restartable_server() -> Iterator[RestartableServer]:
    """A fresh server, gone with all its data when the block ends."""
    folder = Path(tempfile.mkdtemp(dir=os.environ[RUN]))
    try:
        prepare_server(folder)
        with (folder / "postgres" / "postgresql.conf").open("a") as file:
            # What is committed must outlive the crash of the server that `stop` is.
            file.write("synchronous_commit = on\n")
        with embedded_server(folder, "postgres") as url:
            yield RestartableServer(url, EmbeddedServer(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
