import asyncio

import pytest
from sqlalchemy import Engine, text

from kpi_pipeline.db.coordination.rate_limiter import InstancePacing
from kpi_pipeline_tests.db.support import (
    Sleeper,
    note_slots,
    pacing_on,
    run,
    slots_of,
    slots_taken,
    take_slot,
    until_somebody_waits,
)


def leave_slot(engine: Engine, instance: str, expires_in_seconds: float) -> None:
    """A slot as a process leaves it that crashed within a call."""
    statement = text(
        "INSERT INTO bison_call_slots VALUES "
        "(gen_random_uuid(), :instance, clock_timestamp() + :s * interval '1 s')"
    )
    with engine.begin() as connection:
        connection.execute(statement, {"instance": instance, "s": expires_in_seconds})


def test_calls_in_flight_are_capped_over_all_processes(
    engine: Engine, other_engine: Engine
) -> None:
    inside: list[int] = []
    most: list[int] = []

    async def call(pacing: InstancePacing, number: int) -> None:
        async with pacing.slot():
            inside.append(number)
            most.append(len(inside))
            await asyncio.sleep(0.1)
            inside.remove(number)

    async def work() -> None:
        pacings = [pacing_on(it, calls_in_flight=3) for it in (engine, other_engine)]
        await asyncio.gather(*(call(pacings[n % 2], n) for n in range(10)))

    run(work())
    assert (max(most), len(most)) == (3, 10)


def test_slots_of_one_instance_are_not_those_of_another(engine: Engine) -> None:
    leave_slot(engine, "second", expires_in_seconds=3600)
    leave_slot(engine, "second", expires_in_seconds=-1)
    run(take_slot(pacing_on(engine, "main", calls_in_flight=1)))
    assert slots_taken(engine) == 2


def test_an_expired_slot_is_free_and_is_cleared_away(engine: Engine) -> None:
    leave_slot(engine, "main", expires_in_seconds=-1)
    run(take_slot(pacing_on(engine, calls_in_flight=1)))
    assert slots_taken(engine) == 0


def test_a_slot_is_freed_when_the_call_is_over(engine: Engine) -> None:
    async def work() -> None:
        async with pacing_on(engine).slot():
            assert slots_taken(engine) == 1
        assert slots_taken(engine) == 0

    run(work())


def test_a_failed_call_frees_its_slot(engine: Engine) -> None:
    async def work() -> None:
        async with pacing_on(engine).slot():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(work())
    assert slots_taken(engine) == 0


def test_a_cancelled_call_frees_its_slot(engine: Engine) -> None:
    async def work() -> None:
        inside = asyncio.Event()

        async def call() -> None:
            async with pacing_on(engine).slot():
                inside.set()
                await asyncio.Event().wait()

        calling = asyncio.create_task(call())
        await inside.wait()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling

    run(work())
    assert slots_taken(engine) == 0


def test_a_cancellation_while_the_slot_is_being_taken_leaves_none_behind(
    engine: Engine, other_engine: Engine
) -> None:
    run(take_slot(pacing_on(engine)))
    note_slots(engine)

    async def work() -> None:
        with other_engine.begin() as connection:
            connection.execute(text("SELECT * FROM bison_pacing FOR UPDATE"))
            calling = asyncio.create_task(take_slot(pacing_on(engine)))
            await until_somebody_waits(engine)
            calling.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await calling

    run(work())
    # It was taken, for a thread can't be called off, and freed again.
    assert len(slots_of(engine)) == 1
    assert slots_taken(engine) == 0


def test_a_cancellation_while_the_slot_is_being_freed_does_not_keep_it(
    engine: Engine, other_engine: Engine
) -> None:
    async def work() -> None:
        inside, leave = asyncio.Event(), asyncio.Event()

        async def call() -> None:
            async with pacing_on(engine).slot():
                inside.set()
                await leave.wait()

        calling = asyncio.create_task(call())
        await inside.wait()
        with other_engine.begin() as connection:
            connection.execute(text("SELECT * FROM bison_call_slots FOR UPDATE"))
            leave.set()
            await until_somebody_waits(engine)
            calling.cancel()
            await asyncio.sleep(0)
            calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling

    run(work())
    assert slots_taken(engine) == 0


def test_what_came_of_a_call_is_not_lost_when_its_slot_cannot_be_freed(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> str:
        async with pacing_on(engine).slot():
            with engine.begin() as connection:
                connection.execute(text("ALTER TABLE bison_call_slots RENAME TO elsewhere"))
            return "an answer"

    assert run(work()) == "an answer"
    [line] = caplog.messages
    assert line == (
        "A call slot of instance main could not be freed (ProgrammingError); it expires within 60 s"
    )


def test_slots_hold_without_a_spacing_too(engine: Engine) -> None:
    leave_slot(engine, "main", expires_in_seconds=3600)
    note_slots(engine)

    async def work() -> None:
        sleeper = Sleeper()
        pacing = pacing_on(engine, calls_in_flight=1, sleep=sleeper.sleep)
        waiter = asyncio.create_task(take_slot(pacing))
        await sleeper.asleep.wait()
        assert slots_of(engine) == []
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM bison_call_slots"))
        await waiter

    run(work())
    assert len(slots_of(engine)) == 1
