"""A problem to alert on: a failing check, sync, run, schedule or sensor."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from kpi_pipeline.checks.outcome import Severity
from kpi_pipeline.db.alerts import Mute, Reason, mute_name

_SEE_PAGE = "Its page says what is wrong and what to do."
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Line:
    """One detail of a problem, and the clients it applies to; () for none in particular.

    `kind` is the kind of error, such as "401": a client is alerted once for each kind. Set it only
    where the lines of a problem name all of its clients.
    """

    text: str
    clients: tuple[str, ...] = ()
    kind: str = ""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong now.

    `cause` identifies it: problems of one cause are merged. `name` is what people mute: a check,
    a schedule, an asset; `also` and `merged` are the names and reasons merged into it. `what` says
    in sentences what is wrong and what to do, `path` is its page in Dagster's UI. `more` counts the
    lines left out.

    Nobody is notified before it has lasted for `grace`. While there is a problem of the cause
    `follows`, this one is only a symptom: it is held back then, and for `hold` afterwards. The
    receiver `not_to` is the problem, and not notified of it.
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
    grace: timedelta = timedelta(0)
    also: tuple[str, ...] = ()
    merged: frozenset[Reason] = frozenset()
    follows: str | None = None
    hold: timedelta = timedelta(0)
    not_to: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Its own name, and those of the problems merged into it."""
        return (self.name, *self.also)

    @property
    def reasons(self) -> frozenset[Reason]:
        """Each client with each kind of its errors: what a receiver is notified of once."""
        kinds = ((it.kind, it.clients or ("",)) for it in self.lines if it.kind)
        found = {Reason(client, kind) for kind, clients in kinds for client in clients}
        found |= {Reason(it) for it in {*self.clients} - {reason.client for reason in found}}
        return (frozenset(found) or frozenset({Reason("")})) | self.merged


def without_muted(problems: Iterable[Problem], mutes: Mapping[str, Mute]) -> list[Problem]:
    """The problems without those that a mute covers, and without clients that one covers.

    A mute names a problem, a client, or a client in one problem (`mute_name`). A problem of some
    clients is dropped when all of them are muted. The severity is that of the problem as a whole:
    an ERROR of one client also shows the others that were muted for a WARN.
    """
    kept = []
    for problem in problems:
        names = _covering(problem.severity, mutes)
        muted = names | {it for it in problem.clients if mute_name(it, problem.name) in names}
        clients = tuple(it for it in problem.clients if it not in muted)
        if problem.name in muted or (problem.clients and not clients):
            continue
        lines = tuple(_without(problem.lines, muted))
        # A check's description may name its first clients.
        names_muted = any(it in problem.what for it in muted & set(problem.clients))
        what = _SEE_PAGE if names_muted else problem.what
        kept.append(replace(problem, clients=clients, lines=lines, what=what))
    return kept


def muted_since(
    names: Iterable[str], clients: Iterable[str], severity: str, mutes: Mapping[str, Mute]
) -> datetime | None:
    """When the last part of such a problem was muted; None unless all of it is."""
    made = {it: mutes[it].muted_at or _LONG_AGO for it in _covering(severity, mutes)}
    names = list(names)
    by_name = _last([made.get(it) for it in names])
    by_client = _last(
        [
            made.get(client) or _last([made.get(mute_name(client, it)) for it in names])
            for client in clients
        ]
    )
    return min((it for it in (by_name, by_client) if it is not None), default=None)


def _last(parts: Sequence[datetime | None]) -> datetime | None:
    """The last instant; None if a part has none."""
    known = [it for it in parts if it is not None]
    return max(known, default=None) if len(known) == len(parts) else None


def _covering(severity: str, mutes: Mapping[str, Mute]) -> set[str]:
    return {name for name, it in mutes.items() if it.covers(severity)}


def merge_by_cause(problems: Iterable[Problem]) -> list[Problem]:
    """One problem per cause, named after the most severe, of these the oldest."""
    by_cause: dict[str, list[Problem]] = {}
    for problem in problems:
        by_cause.setdefault(problem.cause, []).append(problem)
    return [_merge(group) for group in by_cause.values()]


def _merge(group: Sequence[Problem]) -> Problem:
    if len(group) == 1:
        return group[0]
    first, *others = sorted(group, key=lambda it: (it.severity is Severity.WARN, it.since))
    clients = {client for it in group for client in it.clients}
    return replace(
        first,
        since=min(it.since for it in group),
        clients=tuple(sorted(clients)),
        lines=(*first.lines, *(Line(it.title, it.clients) for it in others)),
        also=tuple(it.name for it in others),
        merged=frozenset(reason for it in others for reason in it.reasons),
    )


def _without(lines: Iterable[Line], muted: set[str]) -> Iterable[Line]:
    for line in lines:
        clients = tuple(it for it in line.clients if it not in muted)
        if clients or not line.clients:
            yield replace(line, clients=clients)
