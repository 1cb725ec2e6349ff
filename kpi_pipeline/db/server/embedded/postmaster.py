"""The running server of a data folder, as its pid file and the process table show it."""

import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

# What PostgreSQL calls the socket of its default port.
SOCKET = ".s.PGSQL.5432"
_FAST_SECONDS = 60.0
_KILLED_SECONDS = 10.0


@dataclass(frozen=True)
class Postmaster:
    """The server's first process, and what it wrote into its pid file."""

    process: psutil.Process
    socket_folder: Path | None
    status: str

    @classmethod
    def of(cls, data: Path) -> Self | None:
        """The one that runs on this data folder, if any.

        After a crash, the id in the file may be that of another process, or of a zombie.
        """
        try:
            lines = [it.strip() for it in (data / "postmaster.pid").read_text().splitlines()]
            process = psutil.Process(int(lines[0]))
            if process.name() != "postgres" or process.status() == psutil.STATUS_ZOMBIE:
                return None
        except (FileNotFoundError, ValueError, IndexError, psutil.Error):
            return None
        # PostgreSQL adds lines as it starts.
        lines += [""] * 8
        socket_folder, status = lines[4], lines[7]
        return cls(process, Path(socket_folder) if socket_folder else None, status)

    @property
    def lets_users_in(self) -> bool:
        """Whether it is ready, and neither stopping nor paused (SIGSTOP)."""
        with suppress(psutil.Error):
            return self.status == "ready" and self.process.status() != psutil.STATUS_STOPPED
        return False

    def resume(self) -> None:
        """Let all processes of the server go on that were paused."""
        for it in self._family():
            with suppress(psutil.Error):
                it.resume()

    def stop(self, *, let_users_end: float = 0.0, crash: bool = False) -> None:
        """Stop the server, and return when its first process is gone.

        Connected users may end for `let_users_end` seconds; after that, their transactions are
        rolled back. With `crash`, it goes at once, and recovers when it starts again.
        """
        self.resume()
        # PostgreSQL's shutdowns: smart, fast, and immediate.
        smart = [(signal.SIGTERM, let_users_end)] if let_users_end else []
        fast = [] if crash else [(signal.SIGINT, _FAST_SECONDS)]
        for number, seconds in [*smart, *fast, (signal.SIGQUIT, _KILLED_SECONDS)]:
            try:
                self.process.send_signal(number)
                self.process.wait(seconds)
            except psutil.TimeoutExpired:
                continue
            except psutil.NoSuchProcess:
                pass
            return

    def _family(self) -> Iterator[psutil.Process]:
        with suppress(psutil.Error):
            yield self.process
            yield from self.process.children()


def kill_leftovers(data: Path) -> None:
    """Kill what is left of a server whose first process was killed, where this user may."""
    for it in psutil.process_iter(["name"]):
        with suppress(psutil.Error):
            if it.info["name"] == "postgres" and Path(it.cwd()) == data.resolve():
                it.kill()
