"""One process at a time fetches a client for a backfill, and none holds a connection meanwhile."""

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from subprocess import PIPE, Popen

import pytest
from sqlalchemy import URL, Engine, text

from kpi_pipeline.db.coordination.lease import backfill_fetch_lock
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline_tests.db.support import run

# Takes the lock, says so, and hangs.
HOLDER = """
import asyncio, sys
from sqlalchemy import make_url
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.db.coordination.lease import backfill_fetch_lock

async def hold():
    async with backfill_fetch_lock(open_engine(make_url(sys.argv[1])), "harbor", ttl_seconds=3):
        print("held", flush=True)
        await asyncio.sleep(600)

asyncio.run(hold())
"""


def leases(engine: Engine) -> list[str]:
    """The clients that are fetched for a backfill now."""
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT workspace FROM backfill_fetch_leases")))


def test_two_fetches_of_a_client_go_one_after_the_other(engine: Engine) -> None:
    order: list[str] = []

    async def fetch(name: str) -> None:
        async with backfill_fetch_lock(engine, "harbor"):
            order.append(f"{name} begins")
            await asyncio.sleep(0.05)
            order.append(f"{name} ends")

    async def work() -> None:
        await asyncio.gather(fetch("one"), fetch("two"))

    run(work())
    first, second = order[0].split()[0], order[2].split()[0]
    assert order == [f"{first} begins", f"{first} ends", f"{second} begins", f"{second} ends"]
    assert leases(engine) == []


def test_one_client_does_not_wait_for_another(engine: Engine) -> None:
    async def work() -> list[str]:
        async with (
            backfill_fetch_lock(engine, "harbor"),
            asyncio.timeout(30),
            backfill_fetch_lock(engine, "quay"),
        ):
            return leases(engine)

    assert sorted(run(work())) == ["harbor", "quay"]


def test_a_fetch_that_fails_frees_its_client(engine: Engine) -> None:
    async def work() -> None:
        async with backfill_fetch_lock(engine, "harbor"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(work())
    assert leases(engine) == []


def test_sixty_four_are_held_on_no_connection_and_waited_for_on_none(
    database: URL, engine: Engine
) -> None:
    one = open_engine(database, pool_size=1)

    async def wait_in_vain() -> None:
        async with asyncio.timeout(0.5), backfill_fetch_lock(one, "client 1"):
            raise AssertionError("two processes hold the lock")

    async def work() -> list[str]:
        async with AsyncExitStack() as stack:
            for number in range(64):
                await stack.enter_async_context(backfill_fetch_lock(one, f"client {number}"))
            waiting = [asyncio.create_task(wait_in_vain()) for _ in range(5)]
            ended = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(it) for it in ended} == {TimeoutError}
            assert one.pool.checkedout() == 0  # type: ignore[attr-defined]
            return leases(engine)

    assert len(run(work())) == 64
    assert leases(engine) == []
    one.dispose()


def test_the_lock_of_a_killed_process_is_free_when_its_lease_ends(
    database: URL, engine: Engine
) -> None:
    address = database.render_as_string(hide_password=False)
    with Popen([sys.executable, "-c", HOLDER, address], stdout=PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
    assert leases(engine) == ["harbor"]

    async def take() -> None:
        async with backfill_fetch_lock(engine, "harbor"):
            pass

    started = time.monotonic()
    run(take())
    assert time.monotonic() - started < 30
    assert leases(engine) == []


def test_a_holder_keeps_its_lease_for_as_long_as_it_works(engine: Engine) -> None:
    async def work() -> None:
        async with backfill_fetch_lock(engine, "harbor", ttl_seconds=0.6):
            for _ in range(3):
                await asyncio.sleep(0.5)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1), backfill_fetch_lock(engine, "harbor"):
                        raise AssertionError("two processes hold the lock")

    run(work())
