"""Slots of a rate limiter, noted by the database itself at the moment they are taken."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

from sqlalchemy import Engine, text

from kpi_pipeline.db.rate_limiter import InstancePacing

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


def pacing_on(
    engine: Engine,
    instance: str = "main",
    *,
    calls_per_second: float = 0,
    calls_in_flight: int = 100,
    lease_seconds: float = LEASE_SECONDS,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> InstancePacing:
    return InstancePacing(
        engine,
        instance,
        calls_per_second=calls_per_second,
        calls_in_flight=calls_in_flight,
        lease_seconds=lease_seconds,
        sleep=sleep,
    )


def note_slots(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text(_NOTE_SLOTS))


def slots_of(engine: Engine, instance: str = "main") -> list[datetime]:
    """The moments, by the database's clock, at which slots were taken since `note_slots`."""
    statement = text("SELECT at FROM slots WHERE instance = :instance ORDER BY at")
    with engine.connect() as connection:
        return list(connection.scalars(statement, {"instance": instance}))


def next_free_at(engine: Engine, instance: str = "main") -> datetime:
    statement = text("SELECT next_free_at FROM bison_pacing WHERE instance = :instance")
    with engine.connect() as connection:
        moment: datetime = connection.execute(statement, {"instance": instance}).scalar_one()
    return moment


def was_free_since(engine: Engine, seconds: float) -> datetime:
    """Make as if the next slot had been free for so long; return since when."""
    statement = text(
        "INSERT INTO bison_pacing VALUES ('main', clock_timestamp() - :s * interval '1 s')"
    )
    with engine.begin() as connection:
        connection.execute(statement, {"s": seconds})
    return next_free_at(engine)


def slots_taken(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.scalar(text("SELECT count(*) FROM bison_call_slots")) or 0


async def take(pacing: InstancePacing) -> None:
    """Take a slot, and free it at once."""
    async with pacing.slot():
        pass
