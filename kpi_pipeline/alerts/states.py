"""How the problems of now change what is remembered of each: when it began, came back and ended.

What is better is remembered as it was for a while (see `rules`): then its return is no news.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from kpi_pipeline.alerts.problem import Problem, merge_by_cause, muted_since, without_muted
from kpi_pipeline.checks.outcome import Severity
from kpi_pipeline.db.alerts import AlertState, LastNotice, Mute, Presence, Reason

# What flaps, and a client that leaves a problem, must stay away for this time to be well.
QUIET = timedelta(hours=1)
DAY = timedelta(hours=24)
# Notices of one problem within a day that come and go with it; a new client is one more.
DAILY = 6


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


def is_flapping(state: AlertState, now: datetime) -> bool:
    """Whether the problem, or a client in it, came back within the last day."""
    return bool(state.came_back) or any(came_back_lately(it, now) for it in state.reasons.values())


def came_back_lately(presence: Presence, now: datetime) -> bool:
    """Whether it came back within the last day."""
    return presence.again and now - presence.since < DAY


def within_a_day(times: Sequence[datetime], now: datetime) -> tuple[datetime, ...]:
    """Those of the last 24 hours."""
    return tuple(it for it in times if now - it < DAY)


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
    came_back = within_a_day(before.came_back, now)
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
        is_back = now - before.ended_at < DAY
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
        if last is None or (last.left_at is not None and now - last.left_at >= DAY):
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
        came_back=within_a_day(state.came_back, now),
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
        calm = QUIET if is_flapping(state, now) else timedelta(0)
        # One notice is kept for its return.
        if now - state.eased_at >= calm and len(within_a_day(last.sent, now)) < DAILY:
            severity = Severity.WARN.value
    return replace(last, severity=severity, reasons=last.reasons - left)


def _is_settled(state: AlertState, now: datetime) -> bool:
    """Whether every receiver knows that it ended, and whether it flaps is no longer of interest."""
    if state.ended_at is None or any(not it.well for it in state.told.values()):
        return False
    return all(now - it.at >= DAY for it in state.told.values())


def _recent(time: datetime | None, now: datetime) -> datetime | None:
    return time if time is not None and now - time < DAY else None


def _hold(problem: Problem, present: Mapping[str, Problem]) -> timedelta:
    """For how long to hold back a problem that only repeats another, muted or not."""
    cause = present.get(problem.follows or "")
    if cause is None:
        return timedelta(0)
    # A problem without clients concerns them all.
    covered = not cause.clients or set(problem.clients) <= set(cause.clients)
    return problem.hold if covered else timedelta(0)
