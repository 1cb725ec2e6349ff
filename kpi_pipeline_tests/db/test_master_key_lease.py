import asyncio

import pytest
from sqlalchemy import Engine, text

from kpi_pipeline.db.coordination.lease import MasterKeyLease
from kpi_pipeline_tests.db.support import leases, run, take_master_key, until_somebody_waits


class Holders:
    """Counts how many hold the lease at once, each for a few steps of the event loop."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.done: list[int] = []

    async def take(self, lease: MasterKeyLease, number: int = 0) -> None:
        async with lease.held("main"):
            self.inside += 1
            self.most = max(self.most, self.inside)
            await asyncio.sleep(0.02)
            self.inside -= 1
            self.done.append(number)


def test_tasks_of_one_process_hold_the_master_key_one_by_one_as_they_came(engine: Engine) -> None:
    async def all_at_once() -> Holders:
        holders, lease = Holders(), MasterKeyLease(engine)
        await asyncio.gather(*(holders.take(lease, number) for number in range(8)))
        return holders

    holders = run(all_at_once())
    assert (holders.most, holders.done) == (1, list(range(8)))


def test_processes_never_hold_the_master_key_together(engine: Engine, other_engine: Engine) -> None:
    async def all_at_once() -> Holders:
        holders = Holders()
        leases = [MasterKeyLease(it) for it in (engine, other_engine, other_engine)]
        await asyncio.gather(*(holders.take(lease) for lease in leases for _ in range(2)))
        return holders

    holders = run(all_at_once())
    assert (holders.most, len(holders.done)) == (1, 6)


def test_each_instance_has_a_master_key_of_its_own(engine: Engine, other_engine: Engine) -> None:
    async def all_inside() -> None:
        lease, other = MasterKeyLease(engine), MasterKeyLease(other_engine)
        async with lease.held("main"), lease.held("second"), other.held("third"):
            assert sorted(leases(engine)) == ["main", "second", "third"]

    run(all_inside())
    assert leases(engine) == []


def test_a_holder_that_fails_frees_the_master_key(engine: Engine) -> None:
    async def fail() -> None:
        async with MasterKeyLease(engine).held("main"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(fail())
    assert leases(engine) == []


def test_a_cancelled_holder_frees_the_master_key(engine: Engine) -> None:
    async def hold(inside: asyncio.Event) -> None:
        async with MasterKeyLease(engine).held("main"):
            inside.set()
            await asyncio.Event().wait()

    async def cancel() -> None:
        inside = asyncio.Event()
        holder = asyncio.create_task(hold(inside))
        await inside.wait()
        holder.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holder

    run(cancel())
    assert leases(engine) == []


def test_a_cancellation_while_the_master_key_is_being_taken_leaves_it_free(
    engine: Engine, other_engine: Engine
) -> None:
    expired = "INSERT INTO bison_master_key_leases VALUES ('main', gen_random_uuid(), '2026-03-18')"
    with engine.begin() as connection:
        connection.execute(text(expired))

    async def cancel() -> None:
        with other_engine.begin() as connection:
            connection.execute(text("SELECT * FROM bison_master_key_leases FOR UPDATE"))
            taker = asyncio.create_task(take_master_key(engine))
            await until_somebody_waits(engine)
            taker.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await taker

    run(cancel())
    assert leases(engine) == []


def test_a_long_use_outlives_the_lease_because_it_is_renewed(
    engine: Engine, other_engine: Engine
) -> None:
    async def work() -> list[str]:
        steps: list[str] = []

        async def rival() -> None:
            async with MasterKeyLease(other_engine).held("main"):
                steps.append("the rival")

        async with MasterKeyLease(engine, ttl_seconds=1).held("main"):
            waiting = asyncio.create_task(rival())
            await asyncio.sleep(2.2)
            steps.append("done")
        await waiting
        return steps

    assert run(work()) == ["done", "the rival"]


def test_nobody_renews_a_lease_that_was_given_back(engine: Engine) -> None:
    async def work() -> set[asyncio.Task[None]]:
        before = asyncio.all_tasks()
        await take_master_key(engine)
        return asyncio.all_tasks() - before

    assert run(work()) == set()


def test_one_lease_serves_one_event_loop_after_another(engine: Engine) -> None:
    holders, lease = Holders(), MasterKeyLease(engine)

    async def three() -> None:
        await asyncio.gather(*(holders.take(lease) for _ in range(3)))

    run(three())
    run(three())
    assert (holders.most, len(holders.done)) == (1, 6)
