import asyncio
import threading
import time

import pytest
from sqlalchemy import Engine, text

from kpi_pipeline.db.coordination.lease import LeaseLost, MasterKeyLease
from kpi_pipeline_tests.db.support import leases, run, take_master_key

LOST = (
    "The master key of instance main was lost to another process while this one used it: "
    "it was not renewed for 30 s. What was read with it was thrown away; run it again."
)


def test_a_missed_renewal_is_made_good_by_the_next(engine: Engine) -> None:
    async def work() -> str:
        async with MasterKeyLease(engine, ttl_seconds=0.3).held("main"):
            rename(engine, "bison_master_key_leases", "elsewhere")
            await asyncio.sleep(0.25)
            rename(engine, "elsewhere", "bison_master_key_leases")
            deadline = time.monotonic() + 60
            while not unexpired(engine):
                assert time.monotonic() < deadline, "the lease is not renewed any more"
                await asyncio.sleep(0.01)
            return "some numbers"

    assert run(work()) == "some numbers"


def rename(engine: Engine, table: str, to: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {table} RENAME TO {to}"))


def unexpired(engine: Engine) -> bool:
    """Whether the lease holds for longer than it could if it had not been renewed just now."""
    statement = text(
        "SELECT expires_at > clock_timestamp() + interval '0.2 s' FROM bison_master_key_leases"
    )
    with engine.connect() as connection:
        return bool(connection.scalar(statement))


def test_a_holder_that_hung_and_lost_the_master_key_is_told_and_its_value_is_not_believed(
    engine: Engine, other_engine: Engine
) -> None:
    believed: list[str] = []

    async def hang() -> None:
        async with MasterKeyLease(engine, ttl_seconds=0.2).held("main"):
            rival = threading.Thread(target=lambda: run(take_master_key(other_engine)))
            rival.start()
            # Blocks the event loop, and with it the renewing.
            rival.join(timeout=60)
            read = "some numbers"
        believed.append(read)

    with pytest.raises(LeaseLost) as error:
        run(hang())
    assert str(error.value) == LOST.replace("30 s", "0.2 s")
    assert believed == []


def test_a_stolen_lease_is_left_to_the_thief(engine: Engine) -> None:
    steal = "UPDATE bison_master_key_leases SET holder = gen_random_uuid()"

    async def be_robbed() -> None:
        async with MasterKeyLease(engine).held("main"):
            with engine.begin() as connection:
                connection.execute(text(steal))

    with pytest.raises(LeaseLost) as error:
        run(be_robbed())
    assert str(error.value) == LOST
    assert leases(engine) == ["main"]


def test_a_hung_holder_keeps_the_master_key_that_nobody_else_wanted(engine: Engine) -> None:
    async def hang() -> str:
        async with MasterKeyLease(engine, ttl_seconds=0.1).held("main"):
            time.sleep(0.3)
            return "some numbers"

    assert run(hang()) == "some numbers"


def test_numbers_are_not_believed_when_the_database_cannot_confirm_the_lease(
    engine: Engine,
) -> None:
    async def work() -> None:
        async with MasterKeyLease(engine).held("main"):
            rename(engine, "bison_master_key_leases", "elsewhere")

    with pytest.raises(LeaseLost) as error:
        run(work())
    assert str(error.value) == (
        "The database could not confirm that the master key of instance main was used by this "
        "process alone. What was read with it was thrown away; check that PostgreSQL is reachable, "
        "then run it again."
    )


def test_an_error_of_the_reading_goes_before_the_loss_of_the_lease(engine: Engine) -> None:
    async def fail() -> None:
        async with MasterKeyLease(engine).held("main"):
            rename(engine, "bison_master_key_leases", "elsewhere")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(fail())
