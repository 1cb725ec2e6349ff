"""When and where the last dump was made, kept in Dagster's key-value table.

A file of the state folder would be unknown on other machines.
"""

import json
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

LAST_DUMP_KEY = "kpi/last_dump"

_READ = text("SELECT value FROM kvs WHERE key = :key")
_WRITE = text(
    "INSERT INTO kvs (key, value) VALUES (:key, :value) "
    "ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)


@dataclass(frozen=True)
class LastDump:
    """The last dump that was made and verified: its instant, by the database's clock, and place."""

    made_at: datetime
    host: str
    file: str
    size: int


def note_dump(connection: Connection, dump: LastDump) -> None:
    """Remember this dump as the last one. `connection` is one to Dagster's database."""
    value = {
        "made_at": dump.made_at.isoformat(),
        "host": dump.host,
        "file": dump.file,
        "size": dump.size,
    }
    connection.execute(_WRITE, {"key": LAST_DUMP_KEY, "value": json.dumps(value)})


def last_dump(connection: Connection) -> LastDump | None:
    """The last dump; None if none was made. `connection` is one to Dagster's database.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: if that has no tables yet.
    """
    found = connection.scalar(_READ, {"key": LAST_DUMP_KEY})
    if found is None:
        return None
    value = json.loads(found)
    return LastDump(
        datetime.fromisoformat(value["made_at"]), value["host"], value["file"], value["size"]
    )
