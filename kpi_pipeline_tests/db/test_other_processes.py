"""Slots and the master key, shared with another process, which may be killed."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from typing import IO

import pytest
from sqlalchemy import Engine, text

from kpi_pipeline_tests.db.support import (
    leases,
    note_slots,
    pacing_on,
    run,
    slots_of,
    slots_taken,
    take_master_key,
    take_slot,
)

pytestmark = pytest.mark.server

_BEGINNING = """
import asyncio, sys
from sqlalchemy import make_url
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.db.coordination.lease import MasterKeyLease
from kpi_pipeline_tests.db.support import pacing_on, take_slot

engine = open_engine(make_url(sys.argv[1]))
"""
_TAKES_20_SLOTS_ON_A_LINE_OF_INPUT = """
async def work():
    pacing = pacing_on(engine, calls_per_second=20)
    await asyncio.gather(*(take_slot(pacing) for _ in range(20)))

print("ready", flush=True)
sys.stdin.readline()
asyncio.run(work())
print("done", flush=True)
"""
_TAKES_THE_ONLY_SLOT_FOR_A_SECOND_AND_KEEPS_IT = """
async def work():
    async with pacing_on(engine, calls_in_flight=1, lease_seconds=1).slot():
        print("held", flush=True)
        await asyncio.Event().wait()

asyncio.run(work())
"""
_HOLDS_THE_MASTER_KEY_UNTIL_A_LINE_OF_INPUT = """
async def work():
    async with MasterKeyLease(engine, ttl_seconds=1).held("main"):
        print("held", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(work())
print("freed", flush=True)
"""


class Other:
    """Another process, as seen from this one."""

    def __init__(self, process: subprocess.Popen[str], stdin: IO[str], stdout: IO[str]) -> None:
        self._process, self._stdin, self._stdout = process, stdin, stdout

    def read_line(self) -> str:
        return self._stdout.readline().rstrip("\n")

    def write_line(self, line: str) -> None:
        self._stdin.write(line + "\n")
        self._stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def another_process(script: str, engine: Engine) -> Iterator[Other]:
    """A Python process that runs `script`, with `engine` on the same database."""
    address = engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", _BEGINNING + script, address]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Other(process, process.stdin, process.stdout)
        finally:
            process.kill()


def test_another_process_is_paced_with_ours(engine: Engine) -> None:
    note_slots(engine)

    async def work() -> None:
        pacing = pacing_on(engine, calls_per_second=20)
        await asyncio.gather(*(take_slot(pacing) for _ in range(20)))

    with another_process(_TAKES_20_SLOTS_ON_A_LINE_OF_INPUT, engine) as other:
        assert other.read_line() == "ready"
        other.write_line("go")
        run(work())
        assert other.read_line() == "done"
    moments = slots_of(engine)
    assert len(moments) == 40
    assert all(later - earlier >= timedelta(seconds=0.05) for earlier, later in pairwise(moments))
    # Wider than a second by what arrivals may jitter.
    over_20 = [later - earlier for earlier, later in zip(moments, moments[20:], strict=False)]
    assert min(over_20) >= timedelta(seconds=1.095)


def test_a_killed_process_s_slot_frees_itself(engine: Engine) -> None:
    with another_process(_TAKES_THE_ONLY_SLOT_FOR_A_SECOND_AND_KEEPS_IT, engine) as other:
        assert other.read_line() == "held"
        with engine.connect() as connection:
            expiry = connection.scalar(text("SELECT expires_at FROM bison_call_slots"))
        other.kill()
    note_slots(engine)
    run(take_slot(pacing_on(engine, calls_in_flight=1)))
    [moment] = slots_of(engine)
    assert moment >= expiry
    assert slots_taken(engine) == 0


def test_another_process_holds_the_master_key_for_as_long_as_it_needs(engine: Engine) -> None:
    with another_process(_HOLDS_THE_MASTER_KEY_UNTIL_A_LINE_OF_INPUT, engine) as other:
        assert other.read_line() == "held"

        async def wait_and_take() -> None:
            ours = asyncio.create_task(take_master_key(engine))
            # Longer than its lease, which it renews.
            await asyncio.sleep(1.5)
            assert not ours.done()
            other.write_line("enough")
            await ours

        run(wait_and_take())
        assert other.read_line() == "freed"


def test_a_killed_holder_frees_the_master_key_when_its_lease_expires(engine: Engine) -> None:
    with another_process(_HOLDS_THE_MASTER_KEY_UNTIL_A_LINE_OF_INPUT, engine) as other:
        assert other.read_line() == "held"
        other.kill()
    assert leases(engine) == ["main"]
    killed = time.monotonic()
    run(take_master_key(engine))
    assert time.monotonic() - killed < 30
    assert leases(engine) == []
