"""One evaluation of the alerts: read the problems, send each receiver its notices, store them.

A notice is stored after it was sent, so a process that dies in between sends it again: delivery is
at least once.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from kpi_pipeline.alerts.delivery import Receiver
from kpi_pipeline.alerts.message import compose
from kpi_pipeline.alerts.problem import Problem
from kpi_pipeline.alerts.rules import after_notice, due_notices
from kpi_pipeline.alerts.sources import stored_problems
from kpi_pipeline.alerts.states import Current, update_states
from kpi_pipeline.app import AppContext
from kpi_pipeline.db.alerts import (
    FailingReceiver,
    forget_failing,
    read_failing,
    read_mutes,
    read_states,
    store_failing,
    store_states,
)
from kpi_pipeline.db.coordination.lease import exclusive

_FIRST_PAUSE = timedelta(seconds=30)
_LONGEST_PAUSE = timedelta(minutes=5)
# Dagster ends an evaluation of a sensor after 60 s; the next one serves the receivers left out.
_MAX_SECONDS = 35.0


@dataclass(frozen=True)
class Evaluation:
    """Result: the number of problems and of receivers, the notices sent, the failing receivers.

    `notified` counts the notices by receiver.
    """

    problems: int
    notified: dict[str, int]
    failing: Sequence[FailingReceiver]
    receivers: int


def evaluate(
    app: AppContext, receivers: Sequence[Receiver], others: Iterable[Problem] = ()
) -> Evaluation:
    """Send each receiver the notices that are due now.

    `others` are problems that no table holds. Concurrent evaluations wait for each other.

    Raises:
        sqlalchemy.exc.DBAPIError: if the database becomes unreachable meanwhile.
    """
    with exclusive(app.engine, "kpi:alerts"):
        return _Evaluator(app, receivers, others).notify_all()


class _Evaluator:
    def __init__(
        self, app: AppContext, receivers: Sequence[Receiver], others: Iterable[Problem]
    ) -> None:
        self._app = app
        self._receivers = receivers
        self._now = app.now()
        self._started = time.monotonic()
        with app.engine.begin() as connection:
            self._failing = read_failing(connection)
            for name in self._failing.keys() - {it.name for it in receivers}:
                forget_failing(connection, name)
                del self._failing[name]
            self._current = self._update(connection, others)

    def notify_all(self) -> Evaluation:
        notified: dict[str, int] = {}
        # Unreachable receivers cost time, so they come last.
        for receiver in sorted(self._receivers, key=lambda it: it.name in self._failing):
            failing = self._failing.get(receiver.name)
            waits = failing is not None and failing.next_try_at > self._now
            if not waits and time.monotonic() - self._started < _MAX_SECONDS:
                notified[receiver.name] = self._notify(receiver)
        notified = {name: count for name, count in notified.items() if count}
        failing_now = [it for _, it in sorted(self._failing.items())]
        return Evaluation(len(self._current.problems), notified, failing_now, len(self._receivers))

    def _update(self, connection: Connection, others: Iterable[Problem]) -> Current:
        """Read the current problems, and store the state of each by cause."""
        current = update_states(
            [*stored_problems(connection), *others],
            read_states(connection),
            mutes=read_mutes(connection, self._now),
            receivers={it.name for it in self._receivers},
            now=self._now,
        )
        store_states(connection, list(current.states.values()), current.forgotten)
        return current

    def _notify(self, receiver: Receiver) -> int:
        """Send the receiver its due notices; return how many it got."""
        settings = self._app.settings
        due = due_notices(
            self._current,
            receiver.name,
            remind_after=timedelta(hours=settings.alert_remind_hours),
            now=self._now,
        )
        if not due:
            return 0
        message = compose(due, timezone=settings.timezone, page=settings.page_url, now=self._now)
        sent = receiver.send(message)
        with self._app.engine.begin() as connection:
            if not sent:
                self._failing[receiver.name] = self._failed(receiver.name)
                store_failing(connection, self._failing[receiver.name])
                return 0
            self._failing.pop(receiver.name, None)
            forget_failing(connection, receiver.name)
            after = [after_notice(it, receiver.name, self._now) for it in due]
            store_states(connection, after)
        states = {**self._current.states, **{it.cause: it for it in after}}
        self._current = replace(self._current, states=states)
        return len(due)

    def _failed(self, name: str) -> FailingReceiver:
        before = self._failing.get(name)
        tries = before.tries + 1 if before else 1
        # Unbounded doubling would overflow.
        pause = min(_FIRST_PAUSE * 2 ** min(tries - 1, 10), _LONGEST_PAUSE)
        since: datetime = before.failing_since if before else self._now
        return FailingReceiver(name, tries, since, self._now + pause)
