"""One look at what is wrong: who is to be told of what, told, and only then noted as told.

A process that dies between telling and noting tells it again: a message comes twice at worst, and
is never lost.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from kpi_pipeline.alerts.delivery import Receiver
from kpi_pipeline.alerts.message import compose
from kpi_pipeline.alerts.problem import Trouble, merged, unmuted
from kpi_pipeline.alerts.rules import after_notice, due_notices, update_states
from kpi_pipeline.alerts.sources import stored_troubles
from kpi_pipeline.app import AppContext
from kpi_pipeline.db.alerts import (
    AlertState,
    FailingReceiver,
    forget_failing,
    read_failing,
    read_mutes,
    read_states,
    store_failing,
    store_states,
)
from kpi_pipeline.db.engine import session_lock

_FIRST_PAUSE = timedelta(seconds=30)
_LONGEST_PAUSE = timedelta(minutes=5)
# Dagster cuts a look off after 60 s; whoever is not reached by then is told at the next one.
_MOST_SECONDS = 35.0


@dataclass(frozen=True)
class Look:
    """What came of it: how many troubles there are, and who was told, is failing, or had no turn.

    `told` counts notices by receiver.
    """

    troubles: int
    told: dict[str, int]
    failing: Sequence[FailingReceiver]
    receivers: int


def evaluate(
    app: AppContext, receivers: Sequence[Receiver], others: Iterable[Trouble] = ()
) -> Look:
    """Tell each receiver what it is to be told now.

    `others` are troubles that no table knows of. Two looks at once wait for each other.

    Raises:
        sqlalchemy.exc.DBAPIError: if the database goes away meanwhile.
    """
    with session_lock(app.engine, "kpi:alerts"):
        return _Look(app, receivers, others).all()


class _Look:
    def __init__(
        self, app: AppContext, receivers: Sequence[Receiver], others: Iterable[Trouble]
    ) -> None:
        self._deployment = app
        self._receivers = receivers
        self._now = app.now()
        self._began = time.monotonic()
        with app.engine.begin() as connection:
            self._failing = read_failing(connection)
            for name in self._failing.keys() - {it.name for it in receivers}:
                forget_failing(connection, name)
                del self._failing[name]
            self._troubles, self._standing = self._stand(connection, others)

    def all(self) -> Look:
        """Tell all receivers."""
        told_of: dict[str, int] = {}
        # Who can't be reached costs time: those who can be come first.
        for receiver in sorted(self._receivers, key=lambda it: it.name in self._failing):
            failing = self._failing.get(receiver.name)
            waits = failing is not None and failing.next_try_at > self._now
            if not waits and time.monotonic() - self._began < _MOST_SECONDS:
                told_of[receiver.name] = self._tell(receiver)
        told_of = {name: count for name, count in told_of.items() if count}
        failing_now = [it for _, it in sorted(self._failing.items())]
        return Look(len(self._troubles), told_of, failing_now, len(self._receivers))

    def _stand(
        self, connection: Connection, others: Iterable[Trouble]
    ) -> tuple[list[Trouble], dict[str, AlertState]]:
        """What is wrong, and how it stands by cause, written down."""
        mutes = read_mutes(connection, self._now)
        raw = [*stored_troubles(connection), *others]
        troubles = merged(unmuted(raw, mutes, self._now))
        standing, gone = update_states(
            troubles,
            read_states(connection),
            hidden={it.cause for it in raw} - {it.cause for it in troubles},
            muted=set(mutes),
            receivers={it.name for it in self._receivers},
            now=self._now,
        )
        store_states(connection, list(standing.values()), gone)
        return troubles, standing

    def _tell(self, receiver: Receiver) -> int:
        """Tell the receiver; of how much it was told."""
        settings = self._deployment.settings
        due = due_notices(
            self._standing,
            self._troubles,
            receiver.name,
            remind_after=timedelta(hours=settings.alert_remind_hours),
            now=self._now,
        )
        if not due:
            return 0
        message = compose(due, timezone=settings.timezone, page=settings.page_url, now=self._now)
        taken = receiver.take(message)
        with self._deployment.engine.begin() as connection:
            if not taken:
                self._failing[receiver.name] = self._failed(receiver.name)
                store_failing(connection, self._failing[receiver.name])
                return 0
            self._failing.pop(receiver.name, None)
            forget_failing(connection, receiver.name)
            after = [after_notice(it, receiver.name, self._now) for it in due]
            store_states(connection, after)
        self._standing |= {it.cause: it for it in after}
        return len(due)

    def _failed(self, name: str) -> FailingReceiver:
        before = self._failing.get(name)
        tries = before.tries + 1 if before else 1
        # Doubling for ever would overflow.
        pause = min(_FIRST_PAUSE * 2 ** min(tries - 1, 10), _LONGEST_PAUSE)
        since: datetime = before.failing_since if before else self._now
        return FailingReceiver(name, tries, since, self._now + pause)
