"""Work with a deadline, slots of the rate limiter as the database notes them, and held leases."""

import asyncio
from collections.abc import Coroutine
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Engine, text

from kpi_pipeline.db.coordination.lease import MasterKeyLease
from kpi_pipeline.db.coordination.rate_limiter import InstancePacing

T = TypeVar("T")

LEASE_SECONDS = 60.0
_NOTE_SLOTS = f"""
CREATE TABLE slots (instance text, at timestamptz);
CREATE FUNCTION note_slot() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO slots VALUES (NEW.instance, NEW.expires_at - interval '{LEASE_SECONDS} s');
    RETURN NEW;
END $$;
CREATE TRIGGER note_slot AFTER INSERT ON bison_call_slots
    FOR EACH ROW EXECUTE FUNCTION note_slot();
"""
# Of this database alone: other tests share the server. Read from pg_locks, which is never cached.
_WAITING = text(
    "SELECT count(*) FROM pg_locks waiting WHERE NOT granted AND EXISTS ("
    "SELECT FROM pg_locks WHERE pid = waiting.pid AND database = "
    "(SELECT oid FROM pg_database WHERE datname = current_database()))"
)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on an event loop of its own; what hangs fails."""
    return asyncio.run(asyncio.wait_for(work, timeout=90))


async def until_somebody_waits(engine: Engine) -> None:
    """Return when a transaction waits for what another one has locked."""
    with engine.connect() as connection:
        while not connection.scalar(_WAITING):
            await asyncio.sleep(0.005)


class Sleeper:
    """Sleeps for real; `asleep` is set when somebody has begun to."""

    def __init__(self) -> None:
        self.asleep = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.asleep.set()
        await asyncio.sleep(seconds)


def pacing_on(engine: Engine, instance: str = "main", **changed: Any) -> InstancePacing:
    """A rate limiter without a limit, unless `changed`."""
    limits = {"calls_per_second": 0, "calls_in_flight": 100, "lease_seconds": LEASE_SECONDS}
    return InstancePacing(engine, instance, **{**limits, **changed})


async def take_slot(pacing: InstancePacing) -> None:
    """Take a slot, and free it at once."""
    async with pacing.slot():
        pass


def note_slots(engine: Engine) -> None:
    """Have the database note each slot that is taken from now on."""
    with engine.begin() as connection:
        connection.execute(text(_NOTE_SLOTS))


def slots_of(engine: Engine, instance: str = "main") -> list[datetime]:
    """The moments, by the database's clock, at which slots were taken since `note_slots`."""
    statement = text("SELECT at FROM slots WHERE instance = :instance ORDER BY at")
    with engine.connect() as connection:
        return list(connection.scalars(statement, {"instance": instance}))


def slots_taken(engine: Engine) -> int:
    """How many slots are taken now, by any instance."""
    with engine.connect() as connection:
        return connection.scalar(text("SELECT count(*) FROM bison_call_slots")) or 0


async def take_master_key(engine: Engine) -> None:
    """Take the lease of the master key, and give it back at once."""
    async with MasterKeyLease(engine).held("main"):
        pass


def leases(engine: Engine) -> list[str]:
    """The instances whose master key is held."""
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT instance FROM bison_master_key_leases")))
