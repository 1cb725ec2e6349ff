"""Keeps the parts of `kpi up` and `kpi demo` running: one that ends is started again, alone.

No library does this. `supervisor` and `circus` leave their children running when they are killed,
and know nothing of a server that listens but does not answer; `circus` opens sockets that take
commands without a login; `honcho` ends all when one ends. None can hold the claim to be the one
Dagster daemon, or watch the embedded PostgreSQL beside the processes.
"""

import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil

from kpi_pipeline.errors import KpiError
from kpi_pipeline.parts import Parts, PartState, PartStatus, write_parts
from kpi_pipeline.services.logs import rotate
from kpi_pipeline.services.processes import START_SECONDS, Child
from kpi_pipeline.services.servers import EmbeddedPart

_log = logging.getLogger(__name__)

# A part that ends more often than this within the window is given up.
_RESTARTS = 5
_WINDOW_SECONDS = 600.0
_LONGEST_PAUSE = 60.0
# A part that runs but answers nothing for so long, and to so many questions, is killed. The second
# counts where this process itself was stopped for a minute.
_SILENCE_SECONDS = 60.0
_SILENT_PROBES = 3
_PROBE_SECONDS = 5.0
_DATABASE_SECONDS = 5.0
_POLL_SECONDS = 0.5
_POLL_SECONDS_AT_START = 0.1
_ROTATE_SECONDS = 10.0


# What is supervised.
Part = Child | EmbeddedPart


class _Probe:
    """One question to a part, asked in a thread: a part that is silent must not delay others."""

    def __init__(self, question: Callable[[], bool]) -> None:
        self.answer: bool | None = None
        # A daemon thread: the end of this process does not wait for an answer.
        self._thread = threading.Thread(target=self._ask, args=(question,), daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """The answer; False if there is none in time."""
        self._thread.join(seconds)
        return bool(self.answer)

    def _ask(self, question: Callable[[], bool]) -> None:
        try:
            self.answer = question()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no answer
            _log.warning("A part could not be asked: %s", type(error).__name__)
            self.answer = False


@dataclass
class _Watched:
    """A part, and what happened to it; moments are those of `time.monotonic`."""

    part: Part
    # Printed when it is ready for the first time.
    greeting: str | None
    status: PartStatus | None = None
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    restarts: int = 0
    reason: str | None = None
    ends: deque[float] = field(default_factory=deque)
    started: float = 0.0
    start_at: float = 0.0
    probe: _Probe | None = None
    probed: float = 0.0
    silent_since: float | None = None
    silent_probes: int = 0

    def is_(self, status: PartStatus, reason: str | None = None) -> None:
        """Note what it does now."""
        self.status, self.since = status, datetime.now(UTC)
        self.reason = reason or self.reason
        self.probe, self.silent_since, self.silent_probes = None, None, 0


class Supervisor:
    """Starts parts in their order, and again when they end, until a signal or `stop`.

    A part that ends is started again after 1, 2, 4 … seconds. After five restarts within ten
    minutes it is given up, and the others go on. An end while the database is unreachable is not
    counted: nothing works without it, and all that needs it waits for it.

    The person at the console reads what `say` and `warn` get: `greetings`, by the key of a part
    that is ready for the first time, and what happens to parts.
    """

    def __init__(
        self,
        command: str,
        state_dir: Path,
        parts: Sequence[Part],
        say: Callable[[str], None],
        warn: Callable[[str], None],
        is_database_up: Callable[[], bool],
        greetings: Mapping[str, str] | None = None,
    ) -> None:
        self._command = command
        self._state_dir = state_dir
        self._watched = [_Watched(it, (greetings or {}).get(it.key)) for it in parts]
        self._say = say
        self._warn = warn
        self._database = is_database_up
        self._process = psutil.Process()
        self._stopping = threading.Event()
        self._written: Parts | None = None
        self._rotated = 0.0

    def run(self, greeting: str) -> None:
        """Keep the parts running until SIGINT, SIGTERM, SIGHUP or `stop`; then end them in order.

        `greeting` is said once all were started. The handlers stay: a second Ctrl-C is not to cut
        the end short.

        Raises:
            KpiError: if all parts were given up.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # What runs in a shell's background, or under nohup, ignores one of them.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: self._stopping.set())
        try:
            while not self._stopping.is_set():
                self.watch(time.monotonic())
                if greeting and all(
                    it.status not in (None, PartStatus.STARTING) for it in self._watched
                ):
                    self._say(greeting)
                    greeting = ""
                starts = any(it.status is PartStatus.STARTING for it in self._watched)
                self._stopping.wait(_POLL_SECONDS_AT_START if starts else _POLL_SECONDS)
            self._say("\nStopping …")
        finally:
            for it in reversed(self._watched):
                it.part.stop()

    def stop(self) -> None:
        """Have `run` end, from any thread."""
        self._stopping.set()

    def watch(self, now: float) -> None:
        """Do once what there is to do; this waits for no part."""
        for number, it in enumerate(self._watched):
            match it.status:
                case None if it.part.is_started:
                    it.is_(PartStatus.RUNNING)
                case None:
                    # In their order, but one that does not start must not hold up the others.
                    before = self._watched[:number]
                    if all(one.status not in (None, PartStatus.STARTING) for one in before):
                        self._start(it, now)
                case PartStatus.PAUSING if now >= it.start_at:
                    if it.part.needs_database and not self._is_database_up():
                        it.start_at = now + 1
                    else:
                        it.restarts += 1
                        self._start(it, now)
                case PartStatus.STARTING | PartStatus.RUNNING:
                    self._check(it, now)
        if now - self._rotated >= _ROTATE_SECONDS:
            self._rotated = now
            for it in self._watched:
                try:
                    rotate(it.part.log)
                except OSError as error:
                    _log.warning("The log %s was not rotated: %s", it.part.log, error)
        self._write()

    def _is_database_up(self) -> bool:
        # One that is paused lets others connect, and says nothing.
        return _Probe(self._database).wait(_DATABASE_SECONDS)

    def _start(self, it: _Watched, now: float) -> None:
        it.started = now
        try:
            it.part.start()
        except (KpiError, OSError) as error:
            self._ended(it, f"could not be started: {error}", now)
            return
        _log.info("%s was started", it.part.name)
        it.is_(PartStatus.STARTING)

    def _check(self, it: _Watched, now: float) -> None:
        """See whether a part that was started still runs, answers and may go on."""
        try:
            it.part.needs()
        except KpiError as error:
            it.part.stop()
            self._give_up(it, f"must not go on: {error}")
            return
        if (problem := it.part.problem()) is not None:
            self._ended(it, problem, now)
        elif it.status is PartStatus.STARTING:
            self._await_answer(it, now)
        else:
            self._require_response(it, now)

    def _await_answer(self, it: _Watched, now: float) -> None:
        if it.probe is None:
            it.probe = _Probe(it.part.answers)
        elif it.probe.answer:
            it.is_(PartStatus.RUNNING)
            if it.greeting is not None:
                self._say(it.greeting)
                it.greeting = None
            if it.restarts:
                self._note(logging.WARNING, f"{it.part.name} runs again.")
        elif now - it.started > START_SECONDS:
            it.part.kill()
            self._ended(it, f"was not ready in {START_SECONDS:.0f} s", now)
        elif it.probe.answer is False:
            it.probe = None

    def _require_response(self, it: _Watched, now: float) -> None:
        if it.probe is None:
            if now - it.probed >= _PROBE_SECONDS:
                it.probe, it.probed = _Probe(it.part.responds), now
            return
        if it.probe.answer is None:
            return
        if it.probe.answer:
            it.silent_since, it.silent_probes = None, 0
        else:
            it.silent_since = now if it.silent_since is None else it.silent_since
            it.silent_probes += 1
            if it.silent_probes >= _SILENT_PROBES and now - it.silent_since >= _SILENCE_SECONDS:
                it.part.kill()
                self._ended(it, f"did not answer for {now - it.silent_since:.0f} s", now)
        it.probe = None

    def _ended(self, it: _Watched, reason: str, now: float) -> None:
        """Plan the next start of a part that ended, or give it up."""
        if not it.part.needs_database or self._is_database_up():
            it.ends.append(now)
        while it.ends and now - it.ends[0] > _WINDOW_SECONDS:
            it.ends.popleft()
        if len(it.ends) > _RESTARTS:
            self._give_up(it, f"{reason}, after {_RESTARTS} restarts within ten minutes")
            return
        pause = min(2.0 ** max(len(it.ends) - 1, 0), _LONGEST_PAUSE)
        it.start_at = now + pause
        it.is_(PartStatus.PAUSING, reason)
        self._note(
            logging.WARNING,
            f"{it.part.name} {reason}. It is started again in {pause:.0f} s; see {it.part.log}.",
        )

    def _give_up(self, it: _Watched, reason: str) -> None:
        it.is_(PartStatus.GIVEN_UP, reason)
        self._note(
            logging.ERROR,
            f"{it.part.name} {reason}. It stays down, and the others go on: see {it.part.log}, "
            f"correct the cause, and start `{self._command}` again.",
        )
        if all(one.status is PartStatus.GIVEN_UP for one in self._watched):
            self._write()
            raise KpiError(f"All parts of `{self._command}` have ended too often.")

    def _note(self, level: int, text: str) -> None:
        _log.log(level, "%s", text)
        self._warn(text)

    def _write(self) -> None:
        """Write the file with the states of the parts, if one has changed."""
        states = [
            PartState(
                it.part.key,
                it.part.name,
                it.status or PartStatus.STARTING,
                it.since,
                it.part.pid if it.status in (PartStatus.STARTING, PartStatus.RUNNING) else None,
                it.restarts,
                it.reason,
            )
            for it in self._watched
        ]
        parts = Parts(self._command, self._process.pid, self._process.create_time(), states)
        if parts == self._written:
            return
        try:
            write_parts(self._state_dir, parts)
        except OSError as error:
            # A full disk is no reason to stop.
            _log.warning("The states of the parts were not written: %s", error)
        self._written = parts
