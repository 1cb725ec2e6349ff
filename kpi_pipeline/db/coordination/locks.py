"""PostgreSQL's advisory locks: they work across processes, and a crash of the holder frees them."""

from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import TypeVar

import anyio
import anyio.to_thread
from sqlalchemy import Connection, bindparam, text
from sqlalchemy.types import ARRAY, Text

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


# Beside it, `lock_owners` of db/events/inbox.py takes these locks.
def try_lock_clients(connection: Connection, workspaces: Collection[str]) -> set[str]:
    """As `lock_clients`, without waiting: the clients whose locks the transaction holds now."""
    statement = text("""
        SELECT workspace FROM unnest(:workspaces) AS t(workspace)
        WHERE pg_try_advisory_xact_lock(hashtextextended('kpi:client:' || workspace, 0))
    """).bindparams(bindparam("workspaces", type_=ARRAY(Text)))
    return set(connection.scalars(statement, {"workspaces": sorted(workspaces)}))
