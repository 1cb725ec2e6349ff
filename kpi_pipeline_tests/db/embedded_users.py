"""Processes that use an embedded server, and what is left of them: support for its tests."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from sqlalchemy import URL, create_engine, make_url, text

from kpi_pipeline.db.server.embedded import EmbeddedServer
from kpi_pipeline.db.server.embedded.sharing import Locks
from kpi_pipeline_tests.cli.running import wait_until
from kpi_pipeline_tests.guard import RUN, prepare_server

_USER = """
import sys
from pathlib import Path
from kpi_pipeline.db.server.embedded import embedded_server
with embedded_server(Path(sys.argv[1]), "postgres") as url:
    print(url.render_as_string(hide_password=False), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A state folder whose server was never started: making one takes a second."""
    folder = Path(tempfile.mkdtemp(dir=os.environ[RUN]))
    prepare_server(folder)
    yield folder
    shutil.rmtree(folder)


def copy_state(made: Path, folder: Path) -> None:
    """Copy a state folder, with its owners: as root, the server is another user's."""
    subprocess.run(["cp", "-a", str(made), str(folder)], check=True)


class User:
    """A process that uses the server of a state folder until it is told to leave, or killed.

    The prefix starts another Python, such as that of another user.
    """

    def __init__(self, state: Path, *prefix: str) -> None:
        self._process = subprocess.Popen(
            [*(prefix or [sys.executable]), "-c", _USER, str(state)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def address(self) -> URL:
        """Wait until it uses the server."""
        assert self._process.stdout is not None
        return make_url(self._process.stdout.readline().strip())

    def leave(self) -> None:
        self._process.communicate("", timeout=60)
        assert self._process.returncode == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def user_of(state: Path, *prefix: str) -> Iterator[User]:
    user = User(state, *prefix)
    try:
        yield user
    finally:
        user.kill()


def answer(url: URL, statement: str = "SELECT 1") -> object:
    """What a new connection gets for a statement."""
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            result = connection.execute(text(statement))
            return result.scalar() if result.returns_rows else None
    finally:
        engine.dispose()


def postmaster(state: Path) -> psutil.Process:
    """The first process of the server that runs."""
    return psutil.Process(int((state / "postgres/postmaster.pid").read_text().split()[0]))


def processes_of(state: Path, program: str = "") -> list[psutil.Process]:
    """What runs for this state folder: the server, its keeper, and its users; or one of them."""
    found = []
    for it in psutil.process_iter():
        # Others may end meanwhile, or be zombies.
        with suppress(psutil.Error):
            line = " ".join(it.cmdline())
            if it.pid != os.getpid() and str(state) in line and program in line:
                found.append(it)
    return found


def all_is_gone(state: Path) -> None:
    """Wait until nothing runs for the state folder, and the server has ended in order."""
    wait_until(
        lambda: not processes_of(state), "the end of all", details=lambda: processes_of(state)
    )
    assert Locks(state / "postgres.shared").is_free("server")
    assert not (state / "postgres/postmaster.pid").exists()
    assert not EmbeddedServer(state).is_running()


def pause(processes: Sequence[psutil.Process]) -> None:
    for it in processes:
        it.send_signal(signal.SIGSTOP)
    wait_until(
        lambda: all(it.status() == psutil.STATUS_STOPPED for it in processes),
        "the processes' pause",
    )
