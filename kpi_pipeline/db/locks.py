"""Locks that PostgreSQL holds for us: across processes, and freed by a crash of the holder."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import partial

from sqlalchemy import Connection, Engine, bindparam, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.types import ARRAY, Text

from kpi_pipeline.db.event_loop import to_the_end
from kpi_pipeline.db.retry import retry_on_disconnect

_LOOK_EVERY_SECONDS = 0.2


def lock_client(connection: Connection, workspace: str) -> None:
    """Wait for the client's rows, and hold them until the transaction ends.

    Automations that recomputes a client's rows takes this lock first, so that a sync and a webhook
    never undo each other.
    """
    lock_clients(connection, [workspace])


def lock_clients(connection: Connection, workspaces: Collection[str]) -> None:
    """As `lock_client`, of several clients, in the one order in which everybody takes them."""
    names = [f"kpi:client:{workspace}" for workspace in sorted(workspaces)]
    statement = text(
        "SELECT pg_advisory_xact_lock(hashtextextended(name, 0)) FROM unnest(:names) AS t(name)"
    ).bindparams(bindparam("names", type_=ARRAY(Text)))
    connection.execute(statement, {"names": names})


@asynccontextmanager
async def backfill_fetch_lock(engine: Engine, workspace: str) -> AsyncIterator[None]:
    """Be the only one, in all processes, who fetches this client's facts for a backfill.

    Nothing wrong comes of two at once, only calls for nothing: so whoever loses the lock, because
    the server restarts, just goes on. Waiting takes no thread and no connection.
    """
    name = f"kpi:fetch:{workspace}"
    take = partial(retry_on_disconnect, partial(_try_session_lock, engine, name))
    connection: Connection | None = None
    try:
        while (connection := await to_the_end(take)) is None:
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
        yield
    finally:
        if connection is not None:
            await to_the_end(partial(_give_back, connection))


def _try_session_lock(engine: Engine, name: str) -> Connection | None:
    """The connection that holds the lock `name` now, or None where another one does."""
    connection = engine.connect()
    taken = False
    try:
        statement = text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))")
        taken = bool(connection.scalar(statement, {"name": name}))
        connection.commit()
    finally:
        if not taken:
            connection.close()
    return connection if taken else None


def _give_back(connection: Connection) -> None:
    try:
        connection.execute(text("SELECT pg_advisory_unlock_all()"))
        connection.commit()
    except SQLAlchemyError:
        # The session is gone, and its lock with it.
        connection.invalidate()
    finally:
        connection.close()
