"""Applies the events of clients that were busy when they arrived, while the gateway goes on."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from kpi_pipeline.db.server.retry import is_away
from kpi_pipeline.inbox.ingest import Inbox, OwnedEvent, apply_if_free

# Longer than a sync of a client takes. The sensor applies what is left after that.
GIVE_UP_SECONDS = 30.0

# While the database is unreachable.
_PAUSE_SECONDS = 1.0

_log = logging.getLogger(__name__)


@dataclass
class _Left:
    """What is left to do for one client, and until when it is tried."""

    deadline: float
    deliveries: list[OwnedEvent] = field(default_factory=list)


class BusyClients:
    """Tries each busy client until it is free, one client per transaction, in a thread of its own.

    No client waits long for another: all are tried without waiting, then one of them is waited for,
    for a fifth of a second. `now` is a steady clock.
    """

    def __init__(self, inbox: Inbox, now: Callable[[], float] = time.monotonic) -> None:
        self._inbox = inbox
        self._now = now
        self._changed = threading.Condition()
        self._left: dict[str, _Left] = {}
        self._trying: str | None = None
        self._stopped = False

    def workspaces(self) -> set[str]:
        """The clients that are busy, as far as is known."""
        with self._changed:
            return {*self._left, *([self._trying] if self._trying else [])}

    def add(self, busy: Mapping[str, Sequence[OwnedEvent]]) -> None:
        """Have these clients' pending events applied, and the further deliveries counted."""
        if not busy:
            return
        with self._changed:
            for workspace, deliveries in busy.items():
                left = self._left.setdefault(workspace, _Left(self._now() + GIVE_UP_SECONDS))
                left.deliveries += deliveries
            self._changed.notify()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work while the block lasts."""
        thread = threading.Thread(target=self._work, name="busy clients")
        thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify()
            thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._left or self._stopped)
                if self._stopped:
                    return
                workspaces = list(self._left)
            for workspace in workspaces:
                self._try(workspace, wait=False)
            # A client that is still busy goes to the end of the line.
            if longest := next(iter(self._left), None):
                self._try(longest, wait=True)

    def _try(self, workspace: str, *, wait: bool) -> None:
        with self._changed:
            # What arrives from now on is left for another try.
            left = self._left.pop(workspace)
            self._trying = workspace
        try:
            done = apply_if_free(self._inbox, workspace, left.deliveries, wait=wait)
        except Exception as error:  # noqa: BLE001 - one client must not end the thread
            done = not is_away(error)
            if done:
                _log.exception("Events of %s are left to Dagster's sensor to apply", workspace)
            else:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped, _PAUSE_SECONDS)
        if not done and self._now() >= left.deadline:
            done = True
            _log.warning(
                "Events of %s are left to Dagster's sensor to apply: other work has been busy with "
                "it for %g s.",
                workspace,
                GIVE_UP_SECONDS,
            )
        with self._changed:
            self._trying = None
            if not done:
                arrived = self._left.pop(workspace, None)
                left.deliveries += arrived.deliveries if arrived else []
                self._left[workspace] = left
