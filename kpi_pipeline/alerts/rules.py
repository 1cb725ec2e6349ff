"""Who is notified of what, and when: from the problems of now, earlier notices, and the clock.

Each receiver is judged separately, by what it was notified of: its severity, and its reasons (each
client with each kind of error). What is worse than that is notified at once: a problem that begins,
a WARN that becomes an ERROR, an error of a new kind; clients that join are collected for some
minutes. What is better is notified when it ends.

A problem that comes and goes *flaps*. It is notified at most six times a day (`DAILY`), and yet
nothing worse is ever held back: what is delayed is the end. A problem is called resolved only
when it has been well for an hour, and when so few notices were sent in the last 24 hours that its
return could be notified at once. Until then the receiver takes it for open. The same holds for an
ERROR that becomes a WARN, and for a client that leaves a problem: the receiver takes them for
unchanged for a while, and is not notified of their return.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from kpi_pipeline.alerts.problem import Problem
from kpi_pipeline.alerts.states import (
    DAILY,
    QUIET,
    Current,
    came_back_lately,
    is_flapping,
    within_a_day,
)
from kpi_pipeline.checks.outcome import Severity
from kpi_pipeline.db.alerts import AlertState, LastNotice, Reason

# Clients join an outage one after the other. Within a day, each notice doubles this, up to QUIET.
_COLLECTING = timedelta(minutes=10)


class NoticeKind(StrEnum):
    """What a notice says of a problem."""

    NEW = "new"
    WORSE = "worse"
    REMINDER = "reminder"
    RESOLVED = "resolved"


@dataclass(frozen=True)
class Notice:
    """What one receiver is notified of; `problem` is None for a resolved one.

    `joined` are the clients that the receiver was not notified of before, or not for this kind of
    error; () in a first notice. `flaps` is how often the problem began or became an ERROR again
    within the last 24 hours; 0 for one that did not come back.
    """

    kind: NoticeKind
    state: AlertState
    problem: Problem | None = None
    joined: tuple[str, ...] = ()
    flaps: int = 0


def due_notices(
    current: Current, receiver: str, *, remind_after: timedelta, now: datetime
) -> list[Notice]:
    """The notices that the receiver gets now: most severe first, resolved problems last."""
    found = []
    for problem in current.problems:
        if problem.not_to == receiver:
            continue
        state = current.states[problem.cause]
        notice = _notice(problem, state, state.told.get(receiver), remind_after, now)
        if notice is not None:
            found.append(notice)
    order = list(NoticeKind)
    found.sort(key=lambda it: (order.index(it.kind), it.state.severity, it.state.since))
    return found + [
        Notice(NoticeKind.RESOLVED, state, flaps=state.flaps)
        for state in current.states.values()
        if (last := state.told.get(receiver)) is not None and _is_over(state, last, now)
    ]


def after_notice(notice: Notice, receiver: str, now: datetime) -> AlertState:
    """The state after the receiver got the notice."""
    state, problem = notice.state, notice.problem
    before = state.told.get(receiver)
    reasons: frozenset[Reason] = frozenset() if problem is None else problem.reasons
    clients: set[str] = set() if problem is None else {*problem.clients}
    if problem is not None and before is not None and not before.well:
        # A client that comes and goes within a problem makes it worse once.
        reasons |= before.reasons
        clients |= {*before.clients}
    last = LastNotice(
        at=now,
        well=problem is None,
        severity=state.severity,
        clients=tuple(sorted(clients)),
        reasons=reasons,
        sent=(*(within_a_day(before.sent, now) if before else ()), now),
    )
    return replace(state, told={**state.told, receiver: last})


def _notice(
    problem: Problem,
    state: AlertState,
    before: LastNotice | None,
    remind_after: timedelta,
    now: datetime,
) -> Notice | None:
    if now < state.tell_from:
        return None
    if before is None or before.well:
        return Notice(NoticeKind.NEW, state, problem, flaps=state.flaps)
    new = _new_reasons(problem, state, before, now)
    rose = problem.severity is Severity.ERROR and before.severity == Severity.WARN
    if rose or _is_time_to_tell(new, problem, state, before, now):
        joined = tuple(sorted({it.client for it in new} - {""}))
        return Notice(NoticeKind.WORSE, state, problem, joined, state.flaps)
    if now - before.at >= remind_after and (
        not is_flapping(state, now) or _has_room(problem.severity, before, now)
    ):
        return Notice(NoticeKind.REMINDER, state, problem, flaps=state.flaps)
    return None


def _new_reasons(
    problem: Problem, state: AlertState, before: LastNotice, now: datetime
) -> set[Reason]:
    """The reasons that the receiver does not know of, each after the grace of the problem.

    A check with many rows does not know the kinds: "" is any.
    """
    known = before.reasons
    clients = {it.client for it in known}
    return {
        it
        for it in problem.reasons - known
        if now - state.reasons[it].since >= problem.grace
        and Reason(it.client) not in known
        and (it.kind or it.client not in clients)
    }


def _is_time_to_tell(
    new: Collection[Reason], problem: Problem, state: AlertState, before: LastNotice, now: datetime
) -> bool:
    if not new:
        return False
    eased = before.severity == Severity.ERROR and problem.severity is Severity.WARN
    if eased or all(came_back_lately(state.reasons[it], now) for it in new):
        return _has_room(problem.severity, before, now)
    sent = len(within_a_day(before.sent, now))
    is_new_kind = not {it.kind for it in new} <= {it.kind for it in before.reasons}
    if is_new_kind and sent < DAILY:
        return True
    is_error = problem.severity is Severity.ERROR
    # Unbounded doubling would overflow.
    pause = min(_COLLECTING * 2 ** min(sent - 1, DAILY), QUIET) if is_error else QUIET
    return now - before.at >= pause


def _has_room(severity: Severity, last: LastNotice, now: datetime) -> bool:
    """Whether a notice leaves room within the day for one that it becomes an ERROR."""
    needed = 1 if severity is Severity.ERROR else 2
    return len(within_a_day(last.sent, now)) + needed <= DAILY


def _is_over(state: AlertState, last: LastNotice, now: datetime) -> bool:
    """Whether to notify the receiver that the problem has ended."""
    if last.well or state.ended_at is None:
        return False
    if state.muted_at is not None and last.at <= state.muted_at:
        # Its end is notified after the mute. What was notified in spite of the mute ends in spite
        # of it, too.
        return False
    if not is_flapping(state, now):
        return True
    # Room for this notice, and two for its return: as a WARN, and then as an ERROR.
    has_room = len(within_a_day(last.sent, now)) + 3 <= DAILY
    return now - state.ended_at >= QUIET and has_room
