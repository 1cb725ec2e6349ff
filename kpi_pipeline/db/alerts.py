"""The state of alerts: problems, notices that receivers got, mutes, and failing receivers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, select

from kpi_pipeline.db.tables import alert_mutes, alert_receivers, alert_state
from kpi_pipeline.db.upsert import upsert

# The name of the problem that clients' syncs fail; others are named for their checks.
SYNC = "sync"


@dataclass(frozen=True)
class LastNotice:
    """The last notice that a receiver got of a problem: open, or (`well`) resolved."""

    at: datetime
    well: bool
    severity: str
    clients: tuple[str, ...]


@dataclass(frozen=True)
class AlertState:
    """A problem that is open, or was until `ended_at`.

    No notice is sent before `tell_from`. `told` holds the last notice by receiver.
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


def read_mutes(connection: Connection, now: datetime) -> dict[str, datetime]:
    """The end of each mute that holds now, by name."""
    statement = (
        select(alert_mutes.c.name, alert_mutes.c.muted_until)
        .where(alert_mutes.c.muted_until > now)
        .order_by(alert_mutes.c.name)
    )
    return {row.name: row.muted_until for row in connection.execute(statement)}


def mute_name(client: str, name: str) -> str:
    """The name that mutes a client in one problem alone, such as a check: acme:plausible."""
    return f"{client}:{name}"


def client_mutes(connection: Connection, client: str, now: datetime) -> dict[str, datetime]:
    """In which problems a client is muted now, and until when."""
    prefix = mute_name(client, "")
    mutes = read_mutes(connection, now)
    return {it.removeprefix(prefix): at for it, at in mutes.items() if it.startswith(prefix)}


def mute(connection: Connection, name: str, until: datetime) -> None:
    """Mute a name; this replaces an earlier mute of it."""
    upsert(connection, alert_mutes, [{"name": name, "muted_until": until}])


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


def _to_json(state: AlertState) -> dict[str, Any]:
    told = {
        receiver: {**asdict(it), "at": it.at.isoformat(), "clients": list(it.clients)}
        for receiver, it in state.told.items()
    }
    return {"names": list(state.names), "clients": list(state.clients), "told": told}


def _from_json(row: Mapping[Any, Any]) -> dict[str, Any]:
    told = {
        receiver: LastNotice(
            **{**it, "at": datetime.fromisoformat(it["at"]), "clients": (*it["clients"],)}
        )
        for receiver, it in row["told"].items()
    }
    return {"names": (*row["names"],), "clients": (*row["clients"],), "told": told}
