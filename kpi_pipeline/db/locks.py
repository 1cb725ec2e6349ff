"""PostgreSQL's advisory locks: they work across processes, and a crash of the holder frees them."""

from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
from sqlalchemy import Connection, Engine, bindparam, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.types import ARRAY, Text

from kpi_pipeline.db.retry import retry_on_disconnect

_POLL_SECONDS = 0.2

T = TypeVar("T")


async def finish_in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread. A cancellation is raised once the work has ended, and not before.

    So a cancelled caller knows that `work` takes nothing any more, and can give back what it took.
    """
    done: Future[T] = Future()

    async def call() -> None:
        # anyio's shield holds off cancelled scopes; the task group around it holds off what
        # `asyncio.Task.cancel` does, as on Ctrl-C.
        with anyio.CancelScope(shield=True):
            try:
                done.set_result(await anyio.to_thread.run_sync(work))
            except BaseException as error:  # noqa: BLE001 - raised to the caller, not in the group
                done.set_exception(error)

    async with anyio.create_task_group() as group:
        group.start_soon(call)
    return done.result()


def lock_client(connection: Connection, workspace: str) -> None:
    """Wait for the lock on the client's rows, and hold it until the transaction ends.

    All code that recomputes a client's rows takes this lock first: a sync and a webhook never undo
    each other's work.
    """
    lock_clients(connection, [workspace])


def lock_clients(connection: Connection, workspaces: Collection[str]) -> None:
    """As `lock_client`, for several clients, always in the same order: no deadlock."""
    names = [f"kpi:client:{workspace}" for workspace in sorted(workspaces)]
    statement = text(
        "SELECT pg_advisory_xact_lock(hashtextextended(name, 0)) FROM unnest(:names) AS t(name)"
    ).bindparams(bindparam("names", type_=ARRAY(Text)))
    connection.execute(statement, {"names": names})


@asynccontextmanager
async def backfill_fetch_lock(engine: Engine, workspace: str) -> AsyncIterator[None]:
    """Fetch this client's facts for a backfill in one process at a time.

    Two fetches at once do no harm, they only waste calls: a holder that loses the lock in a restart
    of the server just goes on. Waiting takes no thread and no connection.
    """
    name = f"kpi:fetch:{workspace}"
    take = partial(retry_on_disconnect, partial(_try_session_lock, engine, name))
    connection: Connection | None = None
    try:
        while (connection := await finish_in_thread(take)) is None:
            await anyio.sleep(_POLL_SECONDS)
        yield
    finally:
        if connection is not None:
            await finish_in_thread(partial(_give_back, connection))


def _try_session_lock(engine: Engine, name: str) -> Connection | None:
    """The connection that holds the lock `name` now, or None where another process does."""
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
