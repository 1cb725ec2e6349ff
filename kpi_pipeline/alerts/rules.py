"""Who is notified of what, and when: from the problems of now, earlier notices, and the clock.

Each receiver is judged separately, by what it was notified of: its severity, and its reasons (each
client with each kind of error). What is worse than that is notified at once: a problem that begins,
a WARN that becomes an ERROR, an error of a new kind; clients that join are collected for some
minutes. What is better is notified when it ends.

A problem that comes and goes *flaps*. It is notified at most six times a day (`_DAILY`), and yet
nothing worse is ever held back: what is delayed is the end. A problem is called resolved only
when it has been well for an hour, and when so few notices were sent in the last 24 hours that its
return could be notified at once. Until then the receiver takes it for open. The same holds for an
ERROR that becomes a WARN, and for a client that leaves a problem: the receiver takes them for
unchanged for a while, and is not notified of their return.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from kpi_pipeline.alerts.problem import Problem, merge_by_cause, muted_since, without_muted
from kpi_pipeline.checks.outcome import Severity
from kpi_pipeline.db.alerts import AlertState, LastNotice, Mute, Presence, Reason

# What flaps, and a client that leaves a problem, must stay away for this time to be well.
QUIET = timedelta(hours=1)
_DAY = timedelta(hours=24)
# Notices of one problem within a day that come and go with it; a new client is one more.
_DAILY = 6
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


@dataclass(frozen=True)
class Current:
    """The problems of now without what is muted, all states by cause, and the causes to forget."""

    problems: Sequence[Problem]
    states: Mapping[str, AlertState]
    forgotten: Collection[str]


def update_states(
    found: Sequence[Problem],
    states: Mapping[str, AlertState],
    *,
    mutes: Mapping[str, Mute],
    receivers: Collection[str],
    now: datetime,
) -> Current:
    """Compute the new state of each problem that was found, or was there before.

    A muted problem has a state, too: if it becomes worse than what was muted, it is notified. While
    one that others follow is muted, they are still held back.
    """
    present = {it.cause: it for it in merge_by_cause(found)}
    shown = {it.cause: it for it in merge_by_cause(without_muted(found, mutes))}
    updated: dict[str, AlertState] = {}
    forgotten = set()
    for cause in {**present, **states}:
        before = states.get(cause)
        problem = present.get(cause)
        if problem is not None:
            state = _open(problem, shown.get(cause), before, mutes, now)
            if hold := _hold(shown.get(cause, problem), present):
                state = replace(state, tell_from=max(state.tell_from, now + hold))
        elif before is not None:
            state = _ended(before, mutes, now)
        told = {it: _eased(last, state, now) for it, last in state.told.items() if it in receivers}
        state = replace(state, told=told)
        if _is_settled(state, now):
            forgotten.add(cause)
        else:
            updated[cause] = state
    return Current(list(shown.values()), updated, forgotten)


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
        sent=(*(_within_a_day(before.sent, now) if before else ()), now),
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
        not _is_flapping(state, now) or _has_room(problem.severity, before, now)
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
    if eased or all(_came_back(state.reasons[it], now) for it in new):
        return _has_room(problem.severity, before, now)
    sent = len(_within_a_day(before.sent, now))
    is_new_kind = not {it.kind for it in new} <= {it.kind for it in before.reasons}
    if is_new_kind and sent < _DAILY:
        return True
    is_error = problem.severity is Severity.ERROR
    # Unbounded doubling would overflow.
    pause = min(_COLLECTING * 2 ** min(sent - 1, _DAILY), QUIET) if is_error else QUIET
    return now - before.at >= pause


def _open(
    problem: Problem,
    shown: Problem | None,
    before: AlertState | None,
    mutes: Mapping[str, Mute],
    now: datetime,
) -> AlertState:
    """The state of a problem that is there; `shown` is what is not muted of it."""
    muted_at = None
    if shown is None:
        # Parts of a merged problem may be muted differently.
        muted_at = muted_since(problem.names, problem.clients, problem.severity, mutes) or now
    visible = shown or problem
    state = AlertState(
        cause=problem.cause,
        title=visible.title,
        severity=visible.severity.value,
        names=visible.names,
        clients=visible.clients,
        since=problem.since,
        tell_from=now + problem.grace,
        reasons=_present(problem.reasons, before, now),
        first_at=now,
        muted_at=muted_at,
    )
    if before is None:
        return state
    came_back = _within_a_day(before.came_back, now)
    eased_at = None
    if visible.severity is Severity.WARN:
        eased_at = now if before.severity == Severity.ERROR else before.eased_at
    elif before.ended_at is None and _recent(before.eased_at, now):
        came_back = (*came_back, now)
    state = replace(
        state,
        told=before.told,
        eased_at=eased_at,
        first_at=_recent(before.first_at, now),
        came_back=came_back,
    )
    if before.ended_at is not None:
        is_back = now - before.ended_at < _DAY
        return replace(
            state,
            first_at=state.first_at if is_back else now,
            came_back=(*came_back, now) if is_back else (),
        )
    since = min(before.since, problem.since)
    return replace(state, since=since, tell_from=before.tell_from)


def _present(
    reasons: frozenset[Reason], before: AlertState | None, now: datetime
) -> dict[Reason, Presence]:
    """When each reason began to hold, and those that no longer do: for a day."""
    if before is None:
        return {it: Presence(now) for it in reasons}
    told = {reason for it in before.told.values() for reason in it.reasons}
    found: dict[Reason, Presence] = {}
    for reason in reasons | before.reasons.keys():
        last = before.reasons.get(reason)
        if last is None or (last.left_at is not None and now - last.left_at >= _DAY):
            if reason in reasons:
                found[reason] = Presence(now)
        elif reason in reasons:
            is_back = last.left_at is not None
            found[reason] = Presence(now, told=last.told, again=last.told) if is_back else last
        elif last.left_at is None:
            found[reason] = replace(last, left_at=now, told=last.told or reason in told)
        else:
            found[reason] = last
    return found


def _ended(state: AlertState, mutes: Mapping[str, Mute], now: datetime) -> AlertState:
    known = [it for it in state.told.values() if not it.well]
    clients = {client for it in known for client in it.clients}
    severity = min((it.severity for it in known), default=state.severity)
    return replace(
        state,
        ended_at=state.ended_at or now,
        reasons=_present(frozenset(), state, now),
        first_at=_recent(state.first_at, now),
        came_back=_within_a_day(state.came_back, now),
        muted_at=muted_since(state.names, clients or state.clients, severity, mutes),
    )


def _eased(last: LastNotice, state: AlertState, now: datetime) -> LastNotice:
    """The notice without what has been better for long enough: its return is worth another one."""
    if last.well:
        return last
    left = {
        it
        for it in last.reasons
        if (at := state.reasons.get(it)) is None or (at.left_at and now - at.left_at >= QUIET)
    }
    severity = last.severity
    if severity == Severity.ERROR and state.eased_at is not None and state.ended_at is None:
        calm = QUIET if _is_flapping(state, now) else timedelta(0)
        # One notice is kept for its return.
        if now - state.eased_at >= calm and len(_within_a_day(last.sent, now)) < _DAILY:
            severity = Severity.WARN.value
    return replace(last, severity=severity, reasons=last.reasons - left)


def _is_flapping(state: AlertState, now: datetime) -> bool:
    """Whether the problem, or a client in it, came back within the last day."""
    return bool(state.came_back) or any(_came_back(it, now) for it in state.reasons.values())


def _came_back(presence: Presence, now: datetime) -> bool:
    return presence.again and now - presence.since < _DAY


def _has_room(severity: Severity, last: LastNotice, now: datetime) -> bool:
    """Whether a notice leaves room within the day for one that it becomes an ERROR."""
    needed = 1 if severity is Severity.ERROR else 2
    return len(_within_a_day(last.sent, now)) + needed <= _DAILY


def _is_over(state: AlertState, last: LastNotice, now: datetime) -> bool:
    """Whether to notify the receiver that the problem has ended."""
    if last.well or state.ended_at is None:
        return False
    if state.muted_at is not None and last.at <= state.muted_at:
        # Its end is notified after the mute. What was notified in spite of the mute ends in spite
        # of it, too.
        return False
    if not _is_flapping(state, now):
        return True
    # Room for this notice, and two for its return: as a WARN, and then as an ERROR.
    has_room = len(_within_a_day(last.sent, now)) + 3 <= _DAILY
    return now - state.ended_at >= QUIET and has_room


def _is_settled(state: AlertState, now: datetime) -> bool:
    """Whether every receiver knows that it ended, and whether it flaps is no longer of interest."""
    if state.ended_at is None or any(not it.well for it in state.told.values()):
        return False
    return all(now - it.at >= _DAY for it in state.told.values())


def _recent(time: datetime | None, now: datetime) -> datetime | None:
    return time if time is not None and now - time < _DAY else None


def _within_a_day(times: Sequence[datetime], now: datetime) -> tuple[datetime, ...]:
    return tuple(it for it in times if now - it < _DAY)


def _hold(problem: Problem, present: Mapping[str, Problem]) -> timedelta:
    """For how long to hold back a problem that only repeats another, muted or not."""
    cause = present.get(problem.follows or "")
    if cause is None:
        return timedelta(0)
    # A problem without clients concerns them all.
    covered = not cause.clients or set(problem.clients) <= set(cause.clients)
    return problem.hold if covered else timedelta(0)
