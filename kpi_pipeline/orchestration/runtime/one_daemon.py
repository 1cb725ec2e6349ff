"""One Dagster daemon at a time for a database: two would execute each run twice.

The claim to be that daemon is a row of Dagster's key-value table. Its holder renews it every three
seconds, and a process that has watched it stay the same for twelve may take it: what is compared is
the row, so no machine's clock matters. It is no advisory lock, as a server keeps that of a machine
that lost its power for hours, and a pooler in transaction mode keeps it forever.

`kpi up` takes the claim before it starts anything, and its daemon shares it. Any other daemon on
the storages of dagster.yaml, such as that of `dagster dev`, takes it with its first heartbeat. Of
a daemon with storages of its own, only Dagster's heartbeats are known.
"""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping

from dagster_postgres import PostgresRunStorage
from sqlalchemy.exc import SQLAlchemyError

from kpi_pipeline.orchestration.runtime.claim import (
    DEAD_AFTER_SECONDS,
    Claim,
    ClaimRow,
    DaemonRunningError,
    parsed,
)

# In the environment of a daemon that shares its parent's claim.
SHARED_CLAIM = "_KPI_DAEMON_CLAIM"

_RENEW_SECONDS = 3.0
# By the database's clock: one that was not renewed for this long needs no watching.
_FORGOTTEN_SECONDS = 60.0
# A daemon sends Dagster's heartbeats every 30 s, later on a busy machine.
_SILENCE_SECONDS = 60.0
_POLL_SECONDS = 0.25

_log = logging.getLogger("dagster.daemon.claim")


class DaemonClaim:
    """The claim that this process holds, or shares with its parent; renewed until `release`.

    `say` gets sentences about what takes time. `on_loss` gets one when another process has taken
    the claim, because this one was stopped for longer than a dead one is watched.
    """

    def __init__(
        self,
        storage: PostgresRunStorage,
        say: Callable[[str], None] = _log.info,
        on_loss: Callable[[str], None] = _log.error,
        *,
        renew_seconds: float = _RENEW_SECONDS,
        dead_after_seconds: float = DEAD_AFTER_SECONDS,
        silence_seconds: float = _SILENCE_SECONDS,
    ) -> None:
        self._storage = storage
        self._row = ClaimRow(storage)
        self._say = say
        self._on_loss = on_loss
        self._renew_seconds = renew_seconds
        self._dead_after_seconds = dead_after_seconds
        self._silence_seconds = silence_seconds
        self._claim: Claim | None = None
        # The daemon of this process; a parent has none, and renews for that of its child.
        self._daemon: str | None = None
        self._lost: str | None = None
        self._ended = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="daemon-claim", daemon=True)

    @property
    def environment(self) -> Mapping[str, str]:
        """The variable with which a child shares the claim."""
        return {SHARED_CLAIM: self._held().holder}

    def take(self, command: str, daemon: str | None = None) -> None:
        """Become the one daemon, or wait until it is certain that another one is.

        `daemon` is this process's id in Dagster's heartbeats, if it is a daemon itself.

        Raises:
            DaemonRunningError: naming the process that is.
        """
        self._daemon = daemon
        before = self._take(command)
        self._renewing.start()
        try:
            self._await_silence(before.daemon if before else None)
        except BaseException:
            self.release()
            raise
        # What is left there, dead daemons wrote. It would keep others waiting.
        self._storage.wipe_daemon_heartbeats()

    def share(self, holder: str, daemon: str) -> None:
        """Be the daemon of the process that holds the claim; one that was it before is not.

        Raises:
            DaemonRunningError: if that process does not hold it any more.
        """
        found = parsed(self._row.read())
        if found is None or found.holder != holder:
            raise found.refusal() if found else DaemonRunningError(_NOT_HELD)
        self._claim = found
        if not self._write({"daemon": daemon}):
            raise DaemonRunningError(_NOT_HELD)
        self._daemon = daemon
        self._renewing.start()

    def announce(self, page: str) -> None:
        """Let others know the address of Dagster's page."""
        self._write({"page": page})

    def require_held(self) -> None:
        """Raise a DaemonRunningError if another process has become the daemon."""
        if self._lost is not None:
            raise DaemonRunningError(self._lost)

    def daemon_beats(self) -> bool:
        """Whether a daemon has sent a heartbeat lately; True while the database is unreachable."""
        try:
            newest = max(self._heartbeats(None).values(), default=0.0)
        except SQLAlchemyError:
            return True
        return time.time() - newest < 2 * self._silence_seconds

    def release(self) -> None:
        """Stop renewing it, and leave it to the next process."""
        self._ended.set()
        if self._renewing.is_alive():
            self._renewing.join()
        if self._claim is not None and self._lost is None:
            try:
                self._write({"released": True})
            except SQLAlchemyError:
                _log.warning("The claim could not be released: the next daemon has to watch it.")

    def _renew(self) -> None:
        while not self._ended.wait(self._renew_seconds):
            try:
                kept = self._write({"released": False})
                holder = self._held() if kept else parsed(self._row.read()) or self._held()
            except SQLAlchemyError:
                # While the database is away, nobody can take it.
                continue
            if not kept:
                self._lost = str(holder.refusal())
                self._on_loss(self._lost)
                return

    def _take(self, command: str) -> Claim | None:
        """Write a claim of this process in place of nothing, or of a dead one, and return that."""
        while True:
            text = self._row.read()
            found = parsed(text)
            now = self._row.clock()
            if (
                found is not None
                and not found.released
                and now - found.renewed_at <= _FORGOTTEN_SECONDS
                and not self._dies(text, found)
            ):
                # It was released meanwhile.
                continue
            now = self._row.clock()
            host, pid = socket.gethostname(), os.getpid()
            mine = Claim(str(uuid.uuid4()), command, host, pid, now, now, daemon=self._daemon)
            if self._row.replace(text, mine):
                self._claim = mine
                return found
            # Another process was faster.

    def _dies(self, text: str | None, found: Claim) -> bool:
        """Watch this claim: whether it stays the same; False if it is released.

        Raises:
            DaemonRunningError: if it is renewed, or another process has taken it.
        """
        self._say(
            f"Dagster worked on this database a moment ago: {found.process}. Checking whether it "
            f"still does, for {self._dead_after_seconds:g} s at most …"
        )
        deadline = time.monotonic() + self._dead_after_seconds
        while time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            began = time.monotonic()
            read = self._row.read()
            # While the database is away, nobody can renew it.
            deadline += time.monotonic() - began
            now = parsed(read)
            if now is None or now.released:
                return False
            if read != text:
                raise now.refusal()
        return True

    def _await_silence(self, dead_daemon: str | None) -> None:
        """Wait until no daemon without a claim can be running.

        Raises:
            DaemonRunningError: if one sends a heartbeat.
        """
        beats = self._heartbeats(dead_daemon)
        age = self._row.clock() - max(beats.values(), default=0.0)
        if age > self._silence_seconds:
            return
        # One from the future says that a clock is wrong, not how old it is.
        seconds = self._silence_seconds - max(age, 0.0)
        self._say(
            "A Dagster daemon that `kpi` did not start was running a moment ago. Checking whether "
            f"it still is, for {seconds:.0f} s at most …"
        )
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            if self._heartbeats(dead_daemon) != beats:
                raise DaemonRunningError(
                    "A Dagster daemon that `kpi` did not start works on this database: it sends "
                    "heartbeats. Two daemons would execute each run twice. Stop it first: "
                    "`dagster-daemon run` or `dagster dev`, on this machine or another."
                )

    def _heartbeats(self, without: str | None) -> dict[str, float]:
        """The last heartbeat of each kind of daemon, except those of the daemon of this id."""
        found = self._storage.get_daemon_heartbeats()
        return {kind: it.timestamp for kind, it in found.items() if it.daemon_id != without}

    def _write(self, changes: Mapping[str, object]) -> bool:
        """Change and renew the claim; False if it is another's."""
        return self._row.renew(self._held(), self._daemon, changes)

    def _held(self) -> Claim:
        if self._claim is None:
            raise RuntimeError("the claim was not taken")
        return self._claim


class ClaimOfDaemon:
    """The claim of a daemon's process: taken, or shared with its parent, at its first heartbeat."""

    def __init__(self, storage: PostgresRunStorage) -> None:
        self._claim = DaemonClaim(storage, on_loss=_end_process)
        self._lock = threading.Lock()
        self._held = False
        self._refused = False

    def require(self, daemon: str) -> None:
        """Return once the daemon of this id is the one of its database.

        Dagster's daemon sends its first heartbeats before it does anything, from each of its
        threads; it ends when one of them does.

        Raises:
            SystemExit: in the thread that asked, if another process is; the log names it.
        """
        with self._lock:
            if not self._held and not self._refused:
                try:
                    if holder := os.environ.get(SHARED_CLAIM):
                        self._claim.share(holder, daemon)
                    else:
                        self._claim.take("a Dagster daemon", daemon)
                    self._held = True
                except DaemonRunningError as error:
                    _log.error("%s", error)
                    self._refused = True
            if self._refused:
                raise SystemExit(1)

    def release(self) -> None:
        """Leave the claim to the next process, if this one has it."""
        if self._held:
            self._claim.release()


_NOT_HELD = (
    "The command that started this daemon does not hold the claim on Dagster's database any more. "
    "Start it again with `kpi up`."
)


def _end_process(reason: str) -> None:
    """End this process at once: no thread of its daemon may do another step."""
    os.write(2, f"\n{reason}\n".encode())
    os._exit(1)
