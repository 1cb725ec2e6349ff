"""Runs the PostgreSQL of a test run, and ends all that the run leaves behind.

pytest starts this program and keeps its end of a pipe. However pytest ends, SIGKILL included, the
pipe closes with it. Then the program stops its server and every process that pytest started, and
removes the folder.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
from sqlalchemy import URL, make_url

# Names the folder of a run in the environment of each process that the run starts.
RUN = "PYTEST_RUN_FOLDER"
TEMPLATE = "kpi_template"
_START_SECONDS = 90.0
_KILL_AFTER_SECONDS = 10.0
# The data are of no use after a crash, and several pytest processes share the server.
_SETTINGS = """
fsync = off
synchronous_commit = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
max_connections = 300
"""


class Guard:
    """The program as pytest sees it."""

    def __init__(self) -> None:
        # A short path: the server's socket is in it.
        self.folder = Path(tempfile.mkdtemp(prefix="kpi-test-"))
        os.environ[RUN] = str(self.folder)
        with (self.folder / "guard.log").open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "kpi_pipeline_tests.guard", str(self.folder)],
                stdin=subprocess.PIPE,
                stderr=log,
                # Ctrl-C reaches pytest, which ends its fixtures first.
                start_new_session=True,
            )

    def start_server(self) -> None:
        """Have the server started; does not wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"server\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """End the server and whatever is left of the run."""
        self._process.communicate()


def server_address() -> URL:
    """Wait for the server of this run; the address of its template database."""
    folder = Path(os.environ[RUN])
    deadline = time.monotonic() + _START_SECONDS
    while not (file := folder / "address").exists():
        log = (folder / "guard.log").read_text()
        assert time.monotonic() < deadline, f"PostgreSQL did not start: {log}"
        time.sleep(0.02)
    return make_url(file.read_text())


def prepare_server(folder: Path) -> None:
    """Make the data folder of a server that spares the disk."""
    from kpi_pipeline.db.server.embedded import EmbeddedServer

    server = EmbeddedServer(folder)
    server.create()
    with (server.data / "postgresql.conf").open("a") as file:
        file.write(_SETTINGS)


def main() -> None:
    folder = Path(sys.argv[1])
    # Its own server is no process to end early.
    del os.environ[RUN]
    try:
        if sys.stdin.readline():
            _serve(folder)
        _end_processes(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _serve(folder: Path) -> None:
    """Run the server, with the KPI tables in the template database, until the pipe closes."""
    # Imported only in a run that needs a database.
    from kpi_pipeline.db.migrate import upgrade
    from kpi_pipeline.db.server.embedded import embedded_server
    from kpi_pipeline.db.server.engine import ensure_database, open_engine

    prepare_server(folder)
    with embedded_server(folder, TEMPLATE) as url:
        ensure_database(url)
        engine = open_engine(url)
        upgrade(engine)
        engine.dispose()
        written = folder / "address.tmp"
        written.write_text(url.render_as_string(hide_password=False))
        written.replace(folder / "address")
        sys.stdin.read()
        # What still holds a connection would delay the end of the server.
        _end_processes(folder)


def _end_processes(folder: Path) -> None:
    """End every other process of the run, in order where it does so in time."""
    own = {os.getpid(), *(it.pid for it in psutil.Process().children(recursive=True))}
    left = [
        it
        for it in psutil.process_iter(["environ"])
        if it.pid not in own and (it.info["environ"] or {}).get(RUN) == str(folder)
    ]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(left, _KILL_AFTER_SECONDS)
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()


if __name__ == "__main__":
    main()
