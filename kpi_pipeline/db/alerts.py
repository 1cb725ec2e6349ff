"""The state of alerts: problems, notices that receivers got, mutes, and failing receivers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, select

from kpi_pipeline.db.check_results import failing_checks
from kpi_pipeline.db.tables import alert_mutes, alert_receivers, alert_state
from kpi_pipeline.db.upsert import upsert

# The name of the problem that clients' syncs fail; others are named for their checks.
SYNC = "sync"


class Reason(NamedTuple):
    """Why a client is part of a problem: the kind of error, "" where there is but one.

    `client` is "" in a problem that names no clients.
    """

    client: str
    kind: str = ""


@dataclass(frozen=True)
class Presence:
    """Since when a reason holds, and since when no longer (`left_at`).

    `told` says that a receiver was notified of it before it left, and `again` that it came back
    after that within a day.
    """

    since: datetime
    left_at: datetime | None = None
    told: bool = False
    again: bool = False


@dataclass(frozen=True)
class LastNotice:
    """The last notice that a receiver got of a problem: open, or (`well`) resolved.

    `clients` are those of all notices since it was resolved last. `severity` and `reasons` are what
    the receiver takes for true: some time after an ERROR became a WARN, or a client left, they
    follow without a notice. `sent` are the times of the notices of the last 24 hours.
    """

    at: datetime
    well: bool
    severity: str
    clients: tuple[str, ...]
    reasons: frozenset[Reason]
    sent: tuple[datetime, ...] = ()


@dataclass(frozen=True)
class AlertState:
    """A problem that is open, or was until `ended_at`.

    No notice is sent before `tell_from`. `told` holds the last notice by receiver. `reasons` are
    those that hold, or did within the last 24 hours. `first_at` is when the problem began, and
    `came_back` when it began or became an ERROR again, both within 24 hours. `eased_at` is since
    when it is a WARN after it was an ERROR. `muted_at` is when the last part of it was muted; None
    unless all of it is.
    """

    cause: str
    title: str
    severity: str
    names: tuple[str, ...]
    clients: tuple[str, ...]
    since: datetime
    tell_from: datetime
    ended_at: datetime | None = None
    told: Mapping[str, LastNotice] = field(default_factory=dict)
    reasons: Mapping[Reason, Presence] = field(default_factory=dict)
    first_at: datetime | None = None
    came_back: tuple[datetime, ...] = ()
    eased_at: datetime | None = None
    muted_at: datetime | None = None

    @property
    def flaps(self) -> int:
        """How often it began or became an ERROR again within 24 hours; 0 if once."""
        times = len(self.came_back) + (self.first_at is not None)
        return times if times > 1 else 0


@dataclass(frozen=True)
class Mute:
    """What is muted until when; `severity` is that of the problem at `muted_at`.

    A mute that was made of a WARN does not cover an ERROR. One that was made when nothing was open
    (`severity` None) announces planned work, whose errors are expected: it covers both.
    """

    name: str
    muted_until: datetime
    muted_at: datetime | None = None
    severity: str | None = None

    def covers(self, severity: str) -> bool:
        """Whether a problem of this severity causes no alert."""
        return not (self.severity == "WARN" and severity == "ERROR")


@dataclass(frozen=True)
class FailingReceiver:
    """A receiver that failed to accept its last `tries` messages."""

    receiver: str
    tries: int
    failing_since: datetime
    next_try_at: datetime


def read_states(connection: Connection) -> dict[str, AlertState]:
    """All states, by cause."""
    names = [it.name for it in fields(AlertState)]
    statement = select(*(alert_state.c[name] for name in names)).order_by(alert_state.c.cause)
    rows = connection.execute(statement).mappings()
    return {row["cause"]: AlertState(**{**row, **_from_json(row)}) for row in rows}


def store_states(
    connection: Connection, states: Sequence[AlertState], gone: Collection[str] = ()
) -> None:
    """Write the states, and delete those of the causes `gone`."""
    upsert(connection, alert_state, [{**vars(it), **_to_json(it)} for it in states])
    if gone:
        connection.execute(delete(alert_state).where(alert_state.c.cause.in_(gone)))


def read_mutes(connection: Connection, now: datetime) -> dict[str, Mute]:
    """The mutes that hold now, by name."""
    names = [it.name for it in fields(Mute)]
    statement = (
        select(*(alert_mutes.c[name] for name in names))
        .where(alert_mutes.c.muted_until > now)
        .order_by(alert_mutes.c.name)
    )
    return {row["name"]: Mute(**row) for row in connection.execute(statement).mappings()}


def mute_name(client: str, name: str) -> str:
    """The name that mutes a client in one problem alone, such as a check: acme:plausible."""
    return f"{client}:{name}"


def client_mutes(connection: Connection, client: str, now: datetime) -> dict[str, Mute]:
    """The mutes of a client in one problem, by the problem's name."""
    prefix = mute_name(client, "")
    mutes = read_mutes(connection, now)
    return {it.removeprefix(prefix): mute for it, mute in mutes.items() if it.startswith(prefix)}


def mute(connection: Connection, name: str, until: datetime, now: datetime) -> Mute:
    """Mute a name; this replaces an earlier mute of it, and keeps its severity if nothing is open.

    Returns:
        The mute, with the severity of the open problems that it covers.
    """
    earlier = read_mutes(connection, now).get(name)
    severity = _open_severity(connection, name) or (earlier.severity if earlier else None)
    made = Mute(name, until, now, severity)
    upsert(connection, alert_mutes, [vars(made)])
    return made


def unmute(connection: Connection, name: str, now: datetime) -> bool:
    """End a mute; return whether there was one."""
    muted = name in read_mutes(connection, now)
    connection.execute(delete(alert_mutes).where(alert_mutes.c.name == name))
    return muted


def read_failing(connection: Connection) -> dict[str, FailingReceiver]:
    """The failing receivers, by name."""
    names = [it.name for it in fields(FailingReceiver)]
    statement = select(*(alert_receivers.c[name] for name in names))
    rows = connection.execute(statement.order_by(alert_receivers.c.receiver)).mappings()
    return {row["receiver"]: FailingReceiver(**row) for row in rows}


def store_failing(connection: Connection, failing: FailingReceiver) -> None:
    """Note that a receiver failed to accept a message."""
    upsert(connection, alert_receivers, [vars(failing)])


def forget_failing(connection: Connection, receiver: str) -> None:
    """Note that a receiver accepted a message."""
    connection.execute(delete(alert_receivers).where(alert_receivers.c.receiver == receiver))


def _open_severity(connection: Connection, name: str) -> str | None:
    """The highest severity of the open problems that the name mutes; None if there is none."""
    client, _, problem = name.partition(":")
    states = [it for it in read_states(connection).values() if it.ended_at is None]
    # The last results of checks may not have been evaluated yet.
    found = [(it.names, it.clients, it.severity) for it in states]
    found += [((it.name,), tuple(it.clients), it.severity) for it in failing_checks(connection)]
    severities = {
        severity
        for names, clients, severity in found
        if (name in names or (client in clients and (problem in names if problem else True)))
    }
    # ERROR sorts before WARN.
    return min(severities, default=None)


def _to_json(state: AlertState) -> dict[str, Any]:
    return {
        "names": list(state.names),
        "clients": list(state.clients),
        "told": {receiver: _notice_to_json(it) for receiver, it in state.told.items()},
        "reasons": [
            [*reason, it.since, it.left_at, it.told, it.again]
            for reason, it in sorted(state.reasons.items())
        ],
        "came_back": list(state.came_back),
    }


def _notice_to_json(notice: LastNotice) -> dict[str, Any]:
    return {**vars(notice), "reasons": sorted(notice.reasons)}


def _from_json(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        "names": (*row["names"],),
        "clients": (*row["clients"],),
        "told": {receiver: _notice_from_json(it) for receiver, it in row["told"].items()},
        "reasons": {
            Reason(client, kind): Presence(_instant(since), left_at and _instant(left_at), *flags)
            for client, kind, since, left_at, *flags in row["reasons"]
        },
        "came_back": tuple(map(_instant, row["came_back"])),
    }


def _notice_from_json(stored: Mapping[str, Any]) -> LastNotice:
    return LastNotice(
        at=_instant(stored["at"]),
        well=stored["well"],
        severity=stored["severity"],
        clients=(*stored["clients"],),
        reasons=frozenset(Reason(*it) for it in stored["reasons"]),
        sent=tuple(map(_instant, stored["sent"])),
    )


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
