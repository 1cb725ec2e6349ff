"""Child processes that never outlive the command that started them."""

import contextlib
import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.logs import append_to

_PR_SET_PDEATHSIG = 1
# How long a part may take to be ready to work.
START_SECONDS = 120.0
_GRACE_SECONDS = 10.0
_SHOWN_LINES = 15


def require_free_port(port: int, setting: str, host: str = "127.0.0.1") -> None:
    """Check that a server can listen on `port` of `host`; 0 means any free port.

    Raises:
        KpiError: if another program listens there, or the address is not of this machine.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
                raise KpiError(f"{host} is not an address of this machine. Correct it.") from None
            listener = _listener(port)
            raise KpiError(
                f"Port {port} on {host} is in use{f' by {listener}' if listener else ''}. Stop the "
                f"program that listens there, or choose another port with {setting}."
            ) from None


def _listener(port: int) -> str | None:
    """The process that listens on this port, for people: the `kpi` command that it is a part of.

    None if this user may not see it, or it is in another container.
    """
    try:
        sockets = psutil.net_connections("tcp")
        pids = {
            it.pid
            for it in sockets
            if it.laddr and it.laddr.port == port and it.status == psutil.CONN_LISTEN
        }
        process = next(psutil.Process(pid) for pid in pids if pid is not None)
        family = [(it.pid, _kpi_command(it.cmdline())) for it in [process, *process.parents()]]
        name = process.name()
    except (psutil.Error, StopIteration):
        return None
    commands = [f"`{command}`, process {pid}" for pid, command in family if command is not None]
    # The last one is the command that somebody typed.
    return commands[-1] if commands else f"`{name}`, process {process.pid}"


def _kpi_command(words: Sequence[str]) -> str | None:
    """The `kpi` command of a process with this command line, without its options."""
    match words:
        case [python, "-m", "kpi_pipeline.cli.main", *rest] if "python" in python:
            pass
        case [python, script, *rest] if "python" in python and Path(script).name == "kpi":
            pass
        case _:
            return None
    names = (word for word in rest if not word.startswith("-"))
    return f"kpi {next(names, '')}".rstrip()


def free_port() -> int:
    """A port of 127.0.0.1 on which no program listens at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Found once, here: between fork and exec, a child of a process with threads may look up nothing.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """Have Linux end this process when its parent is killed; elsewhere only `stop` ends it."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """One child process, started by `start` or a `with`; its output is appended to a log file.

    `key` names it in files, and `name` in sentences. `answers` says whether it is ready to work,
    and `responds` whether it lives at all: by default, that it answers.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        *,
        key: str = "",
        answers: Callable[[], bool] = lambda: True,
        responds: Callable[[], bool] | None = None,
    ) -> None:
        self.name = name
        self.key = key or log.stem
        self.log = log
        self.answers = answers
        self.responds = responds or answers
        # Raises a KpiError where the process must not go on.
        self.needs: Callable[[], None] = lambda: None
        # Done before the process is started a second time, once all that it left has been ended.
        self.before_restart: Callable[[], None] = lambda: None
        # Whether it can't start while the database is unreachable.
        self.needs_database = True
        self._command = list(command)
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._is_over = False

    def __enter__(self) -> Self:
        if not self.is_started:
            self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._started().pid

    @property
    def is_started(self) -> bool:
        """Whether it was started, and not stopped since."""
        return self._process is not None and not self._is_over

    def start(self) -> None:
        """Start the process; end what an earlier one has left before that."""
        if self._process is not None:
            self.kill()
            self.before_restart()
        self._is_over = False
        with append_to(self.log) as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(  # noqa: S603 - our own command lines
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches only the parent, which ends its children in order.
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def await_answer(self) -> None:
        """Wait until it is ready to work.

        Raises:
            KpiError: with the end of its log, if the process ends, or is not ready in two minutes.
        """
        self.wait_until(self.answers, START_SECONDS)

    def problem(self) -> str | None:
        """Why the process does not run, or must not: the rest of a sentence that it begins."""
        code = self._started().poll()
        if code is None:
            return None
        return f"ended with code {code}" if code >= 0 else f"was killed by {_name(-code)}"

    def require_alive(self) -> None:
        """Raise a KpiError if the process has ended, with the end of its log, or must end."""
        self.needs()
        if (problem := self.problem()) is not None:
            raise KpiError(f"{self.name} {problem}. {self.last_words()}")

    def last_words(self) -> str:
        """The path of its log, and the last lines that this start has written there."""
        written = self.log.read_bytes()
        # The log may have been rotated since.
        written = written[self._log_start if self._log_start <= len(written) else 0 :]
        lines = written.decode(errors="replace").splitlines()[-_SHOWN_LINES:]
        return f"The end of {self.log}:\n" + "\n".join(lines)

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Poll `ready` until it returns True.

        Raises:
            KpiError: with the end of its log, if the process ends or the time is over before.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            self.require_alive()
            if time.monotonic() > deadline:
                raise KpiError(f"{self.name} was not ready in {seconds:.0f} s. {self.last_words()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End the process and its descendants: SIGTERM first, SIGKILL after ten seconds."""
        if not self.is_started:
            return
        if self._started().poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                head = psutil.Process(self.pid)
                family = [head, *head.children(recursive=True)]
                # The head first: it ends its own children in order, if it can.
                head.terminate()
                _, alive = psutil.wait_procs(family, timeout=_GRACE_SECONDS)
                for process in alive:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
        self.kill()

    def kill(self) -> None:
        """End the process at once, and what it left: orphans of a crash share its session."""
        if not self.is_started:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._started().wait()
        # The kernel ends the orphans a moment later; until then they hold their ports and files.
        deadline = time.monotonic() + _GRACE_SECONDS
        while _is_group_alive(self.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._is_over = True

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _is_group_alive(leader: int) -> bool:
    """Whether the group of processes that `leader` began has one that is no zombie."""
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def is_paused(pid: int) -> bool:
    """Whether the process was stopped by SIGSTOP, and does nothing."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False


def answers(url: str) -> bool:
    """Whether `url` answers a GET with 200."""
    return _status(url) == httpx.codes.OK


def responds(url: str) -> bool:
    """Whether `url` answers a GET with anything: its server lives, though it may be overloaded."""
    return _status(url) is not None


@cache
def _http() -> httpx.Client:
    """One for all questions: each client loads the certificates of the world's authorities.

    It keeps no connection, as a part may be another process by the next question.
    """
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.Client(timeout=5, limits=limits, trust_env=False)


def _status(url: str) -> int | None:
    try:
        return _http().get(url).status_code
    except httpx.TransportError:
        return None
