"""The keeper: stops the embedded server after its last user was killed.

A user that ends in order stops the server itself if it is the last. One that is killed (kill -9,
out of memory) can't, so a small process waits for the same lock. It needs the standard library
alone until there is something to stop.
"""

import fcntl
import os
import sys
from pathlib import Path

# Children of a killed `kpi up` get SIGTERM, and have ten seconds to end their work.
_LET_USERS_END_SECONDS = 10.0


def _wait(users: int, server: int, state_dir: str) -> None:
    """Wait until nobody uses the server of `state_dir`, then stop it if it runs or starts.

    `users` and `server` are files of locks.
    """
    if os.fork():
        # The child is nobody's: who started it neither waits for it nor ends it.
        os._exit(0)
    fcntl.flock(users, fcntl.LOCK_EX)
    try:
        fcntl.flock(server, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # The locks stay held meanwhile: a new user waits until the server is stopped.
        os.execv(sys.executable, [sys.executable, "-m", _MODULE, state_dir])  # noqa: S606


_MODULE = "kpi_pipeline.db.server.embedded.keeper"


def _stop(state_dir: str) -> None:
    from kpi_pipeline.db.server.embedded.server import EmbeddedServer

    EmbeddedServer(Path(state_dir)).stop(let_users_end=_LET_USERS_END_SECONDS)


if __name__ == "__main__":
    match sys.argv[1:]:
        case [users, server, state_dir]:
            _wait(int(users), int(server), state_dir)
        case [state_dir]:
            _stop(state_dir)
