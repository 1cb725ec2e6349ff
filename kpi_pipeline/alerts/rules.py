"""Who is notified of what, and when: from the problems of now, earlier notices, and the clock.

Each receiver is judged separately, by the notices that reached it: one that was unreachable is
notified later, once, of the state at that time.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from kpi_pipeline.alerts.problem import Problem
from kpi_pipeline.checks.outcome import Severity
from kpi_pipeline.db.alerts import AlertState, LastNotice, mute_name

# A problem that comes and goes, or grows client by client, is notified once in this time. Its
# first notice and the one that it is resolved are never delayed.
QUIET = timedelta(hours=1)


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
    within the last 24 hours, the first time included; 0 for one that does not come and go.
    """

    kind: NoticeKind
    state: AlertState
    problem: Problem | None = None
    joined: tuple[str, ...] = ()
    flaps: int = 0


def update_states(
    problems: Sequence[Problem],
    states: Mapping[str, AlertState],
    *,
    hidden: Collection[str],
    muted: Collection[str],
    receivers: Collection[str],
    now: datetime,
) -> tuple[dict[str, AlertState], set[str]]:
    """The new state of each problem, by cause, and the causes to forget.

    `hidden` are the causes of muted problems: their states stay as they are. `muted` are the names
    whose end is not notified.
    """
    present = {problem.cause: problem for problem in problems}
    ended = {
        cause: _ended(state, receivers, now)
        for cause, state in states.items()
        if cause not in present and cause not in hidden
    }
    forgotten = {
        cause
        for cause, state in ended.items()
        if _is_muted(state, set(muted)) or _is_settled(state, now)
    }
    updated = {cause: state for cause, state in ended.items() if cause not in forgotten}
    for cause, problem in present.items():
        updated[cause] = _current(problem, states.get(cause), receivers, now)
        if hold := _hold(problem, present):
            later = max(updated[cause].tell_from, now + hold)
            updated[cause] = replace(updated[cause], tell_from=later)
    return updated, forgotten


def due_notices(
    states: Mapping[str, AlertState],
    problems: Iterable[Problem],
    receiver: str,
    *,
    remind_after: timedelta,
    now: datetime,
) -> list[Notice]:
    """The notices that the receiver gets now: most severe first, resolved problems last."""
    found = []
    for problem in problems:
        state = states[problem.cause]
        kind = _kind(problem, state, state.told.get(receiver), remind_after, now)
        if kind is not None:
            found.append(Notice(kind, state, problem))
    order = list(NoticeKind)
    found.sort(key=lambda it: (order.index(it.kind), it.state.severity, it.state.since))
    return found + [
        Notice(NoticeKind.RESOLVED, state)
        for state in states.values()
        if state.ended_at is not None and _knows_of(state, receiver)
    ]


def after_notice(notice: Notice, receiver: str, now: datetime) -> AlertState:
    """The state after the receiver got the notice."""
    state = notice.state
    before = state.told.get(receiver)
    clients = set(state.clients)
    if notice.kind is NoticeKind.WORSE and before is not None:
        # A client that comes and goes within a problem makes it worse once.
        clients |= set(before.clients)
    resolved = notice.kind is NoticeKind.RESOLVED
    last = LastNotice(now, resolved, state.severity, tuple(sorted(clients)))
    return replace(state, told={**state.told, receiver: last})


def _kind(
    problem: Problem,
    state: AlertState,
    before: LastNotice | None,
    remind_after: timedelta,
    now: datetime,
) -> NoticeKind | None:
    if now < state.tell_from:
        return None
    if before is None:
        return NoticeKind.NEW
    passed = now - before.at
    if before.well:
        return NoticeKind.NEW if passed >= QUIET else None
    rose = problem.severity is Severity.ERROR and before.severity == Severity.WARN
    if (rose or set(problem.clients) - set(before.clients)) and passed >= QUIET:
        return NoticeKind.WORSE
    return NoticeKind.REMINDER if passed >= remind_after else None


def _current(
    problem: Problem, state: AlertState | None, receivers: Collection[str], now: datetime
) -> AlertState:
    again = state is None or state.ended_at is not None
    return AlertState(
        cause=problem.cause,
        title=problem.title,
        severity=problem.severity.value,
        names=problem.names,
        clients=problem.clients,
        since=problem.since if again or state is None else min(state.since, problem.since),
        tell_from=now + problem.grace if again or state is None else state.tell_from,
        told={} if state is None else _of(state, receivers),
    )


def _ended(state: AlertState, receivers: Collection[str], now: datetime) -> AlertState:
    return replace(state, ended_at=state.ended_at or now, told=_of(state, receivers))


def _of(state: AlertState, receivers: Collection[str]) -> dict[str, LastNotice]:
    """The last notices of receivers that still exist."""
    return {name: it for name, it in state.told.items() if name in receivers}


def _is_settled(state: AlertState, now: datetime) -> bool:
    """Whether every receiver knows that it ended, and it has not returned for long enough."""
    if any(_knows_of(state, receiver) for receiver in state.told):
        return False
    return all(now - it.at >= QUIET for it in state.told.values())


def _knows_of(state: AlertState, receiver: str) -> bool:
    """Whether the receiver was notified of the problem, and not yet of its end."""
    before = state.told.get(receiver)
    return before is not None and not before.well


def _is_muted(state: AlertState, muted: set[str]) -> bool:
    def is_muted(client: str) -> bool:
        return client in muted or all(mute_name(client, it) in muted for it in state.names)

    return set(state.names) <= muted or (bool(state.clients) and all(map(is_muted, state.clients)))


def _hold(problem: Problem, present: Mapping[str, Problem]) -> timedelta:
    """For how long to hold back a problem that only repeats another."""
    cause = present.get(problem.follows or "")
    if cause is None:
        return timedelta(0)
    # A problem without clients concerns them all.
    covered = not cause.clients or set(problem.clients) <= set(cause.clients)
    return problem.hold if covered else timedelta(0)
