"""A budget of connections that all processes of an installation on one machine share.

Each open connection holds the lock on one of a folder's files. The system frees the locks of a
process that is killed, so no slot is lost.
"""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

# With four runs under way; many hosts allow some twenty in all.
CONNECTIONS = 15
# Names the folder in the environment of the processes that `kpi up` starts, and of their runs.
SLOTS_FOLDER = "_KPI_CONNECTION_SLOTS"

# One that holds a connection may need another before it gives the first back.
_WAIT_SECONDS = 20.0
_PAUSE_SECONDS = 0.02

_log = logging.getLogger(__name__)


class Slot:
    """A place for one connection, held until `free`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def free(self) -> None:
        """Let another connection have it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    # Of a connection that was lost before anything could close it.
    __del__ = free


class Slots:
    """The slots of a folder, which is made where it is missing."""

    def __init__(self, folder: Path, number: int = CONNECTIONS) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._files = [folder / f"{it:02}" for it in range(number)]
        self._waiting = folder / "waiting"
        self._asking = _opened(self._waiting)

    def take(self, wait_seconds: float = _WAIT_SECONDS) -> Slot | None:
        """A free slot; None after `wait_seconds` without one: then one connection more is opened.

        Processes that give connections back close them while another waits; see `are_wanted`.
        """
        if (slot := self._free_one()) is not None:
            return slot
        wait_seconds = min(wait_seconds, _WAIT_SECONDS)
        deadline = time.monotonic() + wait_seconds
        waiting = _opened(self._waiting)
        try:
            fcntl.flock(waiting, fcntl.LOCK_SH)
            while time.monotonic() < deadline:
                time.sleep(_PAUSE_SECONDS)
                if (slot := self._free_one()) is not None:
                    return slot
        finally:
            os.close(waiting)
        _log.warning(
            "All %d connections of this installation were in use for %g s; one more is opened.",
            len(self._files),
            wait_seconds,
        )
        return None

    def are_wanted(self) -> bool:
        """Whether a process waits for a slot."""
        try:
            fcntl.flock(self._asking, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._asking, fcntl.LOCK_UN)
        return False

    def _free_one(self) -> Slot | None:
        for file in self._files:
            descriptor = _opened(file)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
            else:
                return Slot(descriptor)
        return None


def slots_of_installation() -> Slots | None:
    """The slots that this process shares with others; None for one that `kpi up` did not start."""
    folder = os.environ.get(SLOTS_FOLDER)
    return _slots(folder, os.getpid()) if folder else None


@contextmanager
def sharing_connections(state_dir: Path) -> Iterator[None]:
    """Take this process's connections from the slots of an installation during the block."""
    before = os.environ.get(SLOTS_FOLDER)
    os.environ[SLOTS_FOLDER] = str(slots_folder(state_dir))
    try:
        yield
    finally:
        del os.environ[SLOTS_FOLDER]
        if before is not None:
            os.environ[SLOTS_FOLDER] = before


def slots_folder(state_dir: Path) -> Path:
    """The folder of an installation's slots."""
    return state_dir / "connections"


@cache
def _slots(folder: str, _process: int) -> Slots | None:
    # A full or read-only disk must not keep anyone from the database.
    with suppress(OSError):
        return Slots(Path(folder))
    return None


def _opened(file: Path) -> int:
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
