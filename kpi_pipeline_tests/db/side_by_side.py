"""Several at once: event loops with a deadline, waiters on locks, and real processes."""

import asyncio
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Engine, text

T = TypeVar("T")

# Of this database alone: other tests share the server. Read from pg_locks, which is never cached.
_WAITING = text(
    "SELECT count(*) FROM pg_locks waiting WHERE NOT granted AND EXISTS ("
    "SELECT FROM pg_locks WHERE pid = waiting.pid AND database = "
    "(SELECT oid FROM pg_database WHERE datname = current_database()))"
)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on an event loop of its own; what hangs fails."""

    async def in_time() -> T:
        async with asyncio.timeout(90):
            return await work

    return asyncio.run(in_time())


async def until_somebody_waits(engine: Engine) -> None:
    """Return when a transaction waits for what another one has locked."""
    with engine.connect() as connection:
        while not connection.scalar(_WAITING):
            await asyncio.sleep(0.005)


class Sleeper:
    """Sleeps for real, and tells when somebody has begun to."""

    def __init__(self) -> None:
        self.asleep = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.asleep.set()
        await asyncio.sleep(seconds)


@contextmanager
def another_process(script: str, engine: Engine) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs `script` with the database's address as its argument."""
    address = engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", script, address]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line that the process prints."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
