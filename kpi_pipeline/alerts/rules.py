"""Who is told what, and when: from what is wrong now, what was told before, and the clock.

Each receiver is looked at by itself, and by what it took: whoever could not be reached is told
later, once, of how things stand then.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from kpi_pipeline.alerts.problem import Trouble
from kpi_pipeline.checks.outcome import Severity
from kpi_pipeline.db.alerts import AlertState, LastNotice

# What comes and goes, or grows client by client, is told of once in this time; its first message
# and the one of its end are not held back.
QUIET = timedelta(hours=1)


class Kind(StrEnum):
    """What a notice tells of a trouble."""

    BROKEN = "broken"
    WORSE = "worse"
    STILL = "still"
    WELL = "well"


@dataclass(frozen=True)
class Notice:
    """What one receiver is to be told of one trouble; there is no trouble any more where well."""

    kind: Kind
    state: AlertState
    trouble: Trouble | None = None


def update_states(
    troubles: Sequence[Trouble],
    states: Mapping[str, AlertState],
    *,
    hidden: Collection[str],
    muted: Collection[str],
    receivers: Collection[str],
    now: datetime,
) -> tuple[dict[str, AlertState], set[str]]:
    """How each trouble stands now, by cause; and the causes that can be forgotten.

    `hidden` are the causes that are there and muted: they stay as they are. `muted` are the names
    of whose end nobody is told.
    """
    present = {trouble.cause: trouble for trouble in troubles}
    standing = {
        cause: _ended(state, receivers, now)
        for cause, state in states.items()
        if cause not in present and cause not in hidden
    }
    gone = {
        cause
        for cause, state in standing.items()
        if _is_muted(state, set(muted)) or _is_told_of(state, now)
    }
    standing = {cause: state for cause, state in standing.items() if cause not in gone}
    for cause, trouble in present.items():
        standing[cause] = _there(trouble, states.get(cause), receivers, now)
        if held := _held(trouble, present):
            later = max(standing[cause].tell_from, now + held)
            standing[cause] = replace(standing[cause], tell_from=later)
    return standing, gone


def due_notices(
    standing: Mapping[str, AlertState],
    troubles: Iterable[Trouble],
    receiver: str,
    *,
    remind_after: timedelta,
    now: datetime,
) -> list[Notice]:
    """What the receiver is to be told now: the worst first, what is over last."""
    found = []
    for trouble in troubles:
        state = standing[trouble.cause]
        kind = _kind(trouble, state, state.told.get(receiver), remind_after, now)
        if kind is not None:
            found.append(Notice(kind, state, trouble))
    order = list(Kind)
    found.sort(key=lambda it: (order.index(it.kind), it.state.severity, it.state.since))
    return found + [
        Notice(Kind.WELL, state)
        for state in standing.values()
        if state.ended_at is not None and _knows_of(state, receiver)
    ]


def after_notice(notice: Notice, receiver: str, now: datetime) -> AlertState:
    """How the trouble stands after the receiver took the notice."""
    state = notice.state
    before = state.told.get(receiver)
    clients = set(state.clients)
    if notice.kind is Kind.WORSE and before is not None:
        # A client that comes and goes within a trouble makes it worse once.
        clients |= set(before.clients)
    last = LastNotice(now, notice.kind is Kind.WELL, state.severity, tuple(sorted(clients)))
    return replace(state, told={**state.told, receiver: last})


def _kind(
    trouble: Trouble,
    state: AlertState,
    before: LastNotice | None,
    remind_after: timedelta,
    now: datetime,
) -> Kind | None:
    if now < state.tell_from:
        return None
    if before is None:
        return Kind.BROKEN
    passed = now - before.at
    if before.well:
        return Kind.BROKEN if passed >= QUIET else None
    rose = trouble.severity is Severity.ERROR and before.severity == Severity.WARN
    if (rose or set(trouble.clients) - set(before.clients)) and passed >= QUIET:
        return Kind.WORSE
    return Kind.STILL if passed >= remind_after else None


def _there(
    trouble: Trouble, state: AlertState | None, receivers: Collection[str], now: datetime
) -> AlertState:
    again = state is None or state.ended_at is not None
    return AlertState(
        cause=trouble.cause,
        title=trouble.title,
        severity=trouble.severity.value,
        names=trouble.names,
        clients=trouble.clients,
        since=trouble.since if again or state is None else min(state.since, trouble.since),
        tell_from=now + trouble.patience if again or state is None else state.tell_from,
        told={} if state is None else _of(state, receivers),
    )


def _ended(state: AlertState, receivers: Collection[str], now: datetime) -> AlertState:
    return replace(state, ended_at=state.ended_at or now, told=_of(state, receivers))


def _of(state: AlertState, receivers: Collection[str]) -> dict[str, LastNotice]:
    """What the receivers were told that there are still."""
    return {name: it for name, it in state.told.items() if name in receivers}


def _is_told_of(state: AlertState, now: datetime) -> bool:
    """Whether nobody waits to hear that it is over, and it has not been back for long enough."""
    if any(_knows_of(state, receiver) for receiver in state.told):
        return False
    return all(now - it.at >= QUIET for it in state.told.values())


def _knows_of(state: AlertState, receiver: str) -> bool:
    before = state.told.get(receiver)
    return before is not None and not before.well


def _is_muted(state: AlertState, muted: set[str]) -> bool:
    return set(state.names) <= muted or (bool(state.clients) and set(state.clients) <= muted)


def _held(trouble: Trouble, present: Mapping[str, Trouble]) -> timedelta:
    """For how long it need not be told, as another trouble says what it says."""
    first = present.get(trouble.follows or "")
    if first is None:
        return timedelta(0)
    # One that names no client concerns them all.
    told_of = set(trouble.clients) <= set(first.clients)
    return trouble.afterwards if told_of or not first.clients else timedelta(0)
