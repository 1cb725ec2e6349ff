"""The row that says who is the daemon of a database, in Dagster's key-value table.

Times are those of the database's clock, so no machine's clock matters.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, TypeVar

from dagster import DagsterInstance
from dagster_postgres import PostgresRunStorage
from sqlalchemy import Cast, Connection, Text, cast, extract, func, select
from sqlalchemy.dialects.postgresql import JSONB, insert

from kpi_pipeline.db.dagster_tables import DAEMON_CLAIM_KEY
from kpi_pipeline.db.server.retry import retry_while_disconnected
from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration.dagster_private import KeyValueStoreTable

# A claim that was not renewed for this long, while it was watched, is that of a dead process.
DEAD_AFTER_SECONDS = 12.0

_KEY = DAEMON_CLAIM_KEY

_table = KeyValueStoreTable.c
_now = extract("epoch", func.clock_timestamp())

T = TypeVar("T")


class DaemonRunningError(KpiError):
    """Another process is the daemon of this database."""


@dataclass(frozen=True)
class Claim:
    """Who is, or was, the daemon; times are seconds of the database's clock.

    `pid` is that of the command to stop; `daemon` is the id in Dagster's heartbeats, once there are
    some. `released` says that the holder ended in order.
    """

    holder: str
    command: str
    host: str
    pid: int
    since: float
    renewed_at: float
    page: str | None = None
    daemon: str | None = None
    released: bool = False

    @property
    def process(self) -> str:
        """The holder, for people."""
        return f"`{self.command}`, process {self.pid} on {self.host}"

    def is_alive(self, now: datetime) -> bool:
        """Whether it was renewed a moment before this instant of the database's clock."""
        return not self.released and now.timestamp() - self.renewed_at < DEAD_AFTER_SECONDS

    def refusal(self) -> DaemonRunningError:
        """The error that names the holder, for a process that wanted the claim."""
        page = f", with its page at {self.page}" if self.page else ""
        since = f"{datetime.fromtimestamp(self.since, UTC):%Y-%m-%d %H:%M} UTC"
        return DaemonRunningError(
            f"Dagster already works on this database: {self.process}, since {since}{page}. Two "
            "daemons would execute each run twice. Use that one, or stop it first."
        )


def read_claim(dagster_instance: DagsterInstance) -> Claim | None:
    """The claim on the database of this instance, alive or not."""
    return parsed(dagster_instance.daemon_cursor_storage.get_cursor_values({_KEY}).get(_KEY))


class ClaimRow:
    """The row, in the run storage's database; a read waits while that is unreachable."""

    def __init__(self, storage: PostgresRunStorage) -> None:
        self._storage = storage

    def clock(self) -> float:
        """Now, in seconds."""
        return self._tried(lambda connection: float(connection.scalar(select(_now)) or 0))

    def read(self) -> str | None:
        """Its text, by which a later state is told from this one; see `parsed`."""
        statement = select(_table.value).where(_table.key == _KEY)
        return self._tried(lambda connection: connection.scalar(statement))

    def replace(self, text: str | None, mine: Claim) -> bool:
        """Write `mine` if the row still is what was read."""
        value = json.dumps(asdict(mine))
        new = insert(KeyValueStoreTable).values(key=_KEY, value=value)
        statement = new.on_conflict_do_update(
            index_elements=[_table.key], set_={"value": value}, where=_table.value == text
        ).returning(_table.key)
        # In place of nothing, a row that exists is another's.
        return self._tried(lambda connection: connection.scalar(statement)) is not None

    def renew(self, mine: Claim, daemon: str | None, changes: Mapping[str, object]) -> bool:
        """Renew `mine` with `changes`, and write a row that is gone; False if it is another's.

        With `daemon`, it is another's, too, if another daemon shares the claim.

        Raises:
            SQLAlchemyError: if the database is unreachable.
        """
        written = {**asdict(mine), "daemon": daemon, **changes}
        stored = cast(_table.value, JSONB)
        now = func.jsonb_build_object("renewed_at", _now)
        ours = stored["holder"].astext == mine.holder
        if daemon is not None:
            ours &= stored["daemon"].astext == daemon
        new = insert(KeyValueStoreTable).values(
            key=_KEY, value=cast(_json(written).op("||")(now), Text)
        )
        statement = new.on_conflict_do_update(
            index_elements=[_table.key],
            set_={"value": cast(stored.op("||")(_json(changes)).op("||")(now), Text)},
            where=ours,
        ).returning(_table.key)
        with self._storage.connect() as connection:
            return connection.scalar(statement) is not None

    def _tried(self, work: Callable[[Connection], T]) -> T:
        """Do `work` on a connection, and again while the database is unreachable."""

        def once() -> T:
            with self._storage.connect() as connection:
                return work(connection)

        return retry_while_disconnected(once)


_FIELDS = {field.name for field in fields(Claim)}


def parsed(text: str | None) -> Claim | None:
    """The claim that the text of the row says, if there is one."""
    if text is None:
        return None
    # A newer version may write more.
    return Claim(**{name: it for name, it in json.loads(text).items() if name in _FIELDS})


def _json(value: Mapping[str, object]) -> Cast[Any]:
    return cast(dict(value), JSONB)
