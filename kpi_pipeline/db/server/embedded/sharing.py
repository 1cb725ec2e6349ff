"""Who uses the embedded server: locks that the kernel drops however their holder ends.

A folder beside the data holds one file for each lock (flock):
- `users`: each user holds it shared; a process that gets it exclusively knows that there is none.
- `starting`: held while one process checks that the server runs, and starts it if not.
- `server`: the processes of the server inherit it, so it is free only when all of them are gone.
- `keeper`: held by the keeper (keeper.py), which waits for the last user to be gone.
"""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kpi_pipeline.db.server.embedded import keeper


class Locks:
    """The locks of one embedded server, in this folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def opened(self, name: str) -> Iterator[int]:
        """The file of a lock, as a descriptor of its own; closing it frees what it holds."""
        owner = self.folder.parent.stat()
        self.folder.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.geteuid() == 0:
                # Otherwise the owner of the state folder could not use it after root did.
                os.chown(self.folder, owner.st_uid, owner.st_gid)
                os.fchown(lock, owner.st_uid, owner.st_gid)
            yield lock
        finally:
            os.close(lock)

    @contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Hold a lock exclusively; waits for it."""
        with self.opened(name) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def is_free(self, name: str) -> bool:
        """Whether no process holds this lock at the moment."""
        with self.opened(name) as lock:
            return taken(lock, fcntl.LOCK_EX)

    @contextmanager
    def used(self, stop: Callable[[], None]) -> Iterator[None]:
        """Be a user of the server while the block runs; the last one to leave calls `stop`."""
        with self.opened("users") as lock:
            # Waits while the server of the last user is being stopped.
            fcntl.flock(lock, fcntl.LOCK_SH)
            try:
                yield
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)
                if taken(lock, fcntl.LOCK_EX):
                    stop()
                elif not taken(lock, fcntl.LOCK_SH):
                    # No other user has it, so the keeper is stopping the server: wait for that.
                    fcntl.flock(lock, fcntl.LOCK_SH)

    def start_keeper(self, state_dir: Path) -> None:
        """Have a keeper wait for the last user to be gone, unless there is one already."""
        names = ("keeper", "users", "server")
        with ExitStack() as stack:
            own, users, server = (stack.enter_context(self.opened(it)) for it in names)
            if taken(own, fcntl.LOCK_EX):
                waiting = [sys.executable, "-I", "-S", keeper.__file__]
                # It detaches itself; -I and -S spare the imports of a process that only waits.
                subprocess.run(  # noqa: S603 - our own program
                    [*waiting, *map(str, (users, server, state_dir))],
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                    cwd="/",
                    pass_fds=(own, users, server),
                    start_new_session=True,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    check=True,
                )


def taken(lock: int, kind: int) -> bool:
    """Whether this lock could be taken at once."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
