"""What is wrong, whoever noticed it: a check, a run, or a schedule that fails."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from kpi_pipeline.checks.outcome import Severity

_ON_THE_PAGE = "Its page says what is wrong, and what to do about it."


@dataclass(frozen=True)
class Line:
    """One thing to know about the trouble, and the clients of whom it is true; () for no client."""

    text: str
    clients: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trouble:
    """One thing that is wrong now.

    Troubles of one `cause` are one. `name` is what people mute: a check, a schedule, an asset.
    `clients` are keys, and `more` is how many lines a check left out; `what` says what is wrong
    and what to do about it, in sentences; `path` leads to it on Dagster's page. `patience` is how
    long it may be over by itself before anybody is told. While there is a trouble of the cause
    `follows`, it would say nothing new, nor `afterwards`, until it was looked at again.
    """

    cause: str
    name: str
    title: str
    severity: Severity
    since: datetime
    what: str
    clients: tuple[str, ...] = ()
    more: int = 0
    lines: tuple[Line, ...] = ()
    path: str = ""
    patience: timedelta = timedelta(0)
    also: tuple[str, ...] = ()
    follows: str | None = None
    afterwards: timedelta = timedelta(0)

    @property
    def names(self) -> tuple[str, ...]:
        """Its own name, and those of what was merged into it."""
        return (self.name, *self.also)


def unmuted(
    troubles: Iterable[Trouble], mutes: Mapping[str, datetime], now: datetime
) -> list[Trouble]:
    """The troubles without those that are muted, and without muted clients.

    A trouble of some clients goes with the last of them.
    """
    muted = {name for name, until in mutes.items() if until > now}
    kept = []
    for trouble in troubles:
        clients = tuple(it for it in trouble.clients if it not in muted)
        if trouble.name in muted or (trouble.clients and not clients):
            continue
        lines = tuple(_without(trouble.lines, muted))
        # A check's own words may name the first of the clients.
        names_them = any(it in trouble.what for it in muted & set(trouble.clients))
        what = _ON_THE_PAGE if names_them else trouble.what
        kept.append(replace(trouble, clients=clients, lines=lines, what=what))
    return kept


def merged(troubles: Iterable[Trouble]) -> list[Trouble]:
    """One trouble for each cause, named for the worst of its troubles, the oldest of these."""
    by_cause: dict[str, list[Trouble]] = {}
    for trouble in troubles:
        by_cause.setdefault(trouble.cause, []).append(trouble)
    return [_one_of(group) for group in by_cause.values()]


def _one_of(group: Sequence[Trouble]) -> Trouble:
    if len(group) == 1:
        return group[0]
    first, *others = sorted(group, key=lambda it: (it.severity is Severity.WARN, it.since))
    clients = {client for it in group for client in it.clients}
    return replace(
        first,
        since=min(it.since for it in group),
        clients=tuple(sorted(clients)),
        lines=(*first.lines, *(Line(it.title, it.clients) for it in others)),
        patience=min(it.patience for it in group),
        also=tuple(it.name for it in others),
    )


def _without(lines: Iterable[Line], muted: set[str]) -> Iterable[Line]:
    for line in lines:
        clients = tuple(it for it in line.clients if it not in muted)
        if clients or not line.clients:
            yield replace(line, clients=clients)
