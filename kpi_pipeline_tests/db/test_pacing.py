import asyncio
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, text

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


def seconds(moments: list[datetime], apart: int = 1) -> list[float]:
    """How long after each slot the one that comes `apart` slots later was taken."""
    return [
        (later - earlier).total_seconds()
        for earlier, later in zip(moments, moments[apart:], strict=False)
    ]


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


def test_slots_are_spaced_however_many_wait(engine: Engine) -> None:
    note_slots(engine)

    async def work() -> None:
        pacing = pacing_on(engine, calls_per_second=50)
        await asyncio.gather(*(take_slot(pacing) for _ in range(12)))

    run(work())
    gaps = seconds(slots_of(engine))
    assert len(gaps) == 11
    assert min(gaps) >= 0.02
    assert sum(gaps) >= 10 * 0.022


def test_no_second_ever_has_more_slots_than_the_rate_in_whatever_process(
    engine: Engine, other_engine: Engine
) -> None:
    note_slots(engine)

    async def work() -> None:
        pacings = [pacing_on(it, calls_per_second=20) for it in (engine, other_engine)]
        await asyncio.gather(*(take_slot(pacings[n % 2]) for n in range(36)))

    run(work())
    moments = slots_of(engine)
    assert len(moments) == 36
    assert min(seconds(moments)) >= 0.05
    # Wider than a second by what arrivals may jitter.
    assert min(seconds(moments, apart=20)) >= 1.095


def test_after_a_quiet_time_there_is_no_burst(engine: Engine) -> None:
    was_free_since(engine, seconds=3600)
    note_slots(engine)

    async def work() -> None:
        pacing = pacing_on(engine, calls_per_second=50)
        await asyncio.gather(*(take_slot(pacing) for _ in range(4)))

    run(work())
    assert min(seconds(slots_of(engine))) >= 0.02


def test_a_takers_lateness_is_made_good_up_to_a_twentieth_of_the_spacing(engine: Engine) -> None:
    free_since = was_free_since(engine, seconds=1)
    run(take_slot(pacing_on(engine, calls_per_second=0.01)))
    assert next_free_at(engine) == free_since + timedelta(seconds=110)


def test_a_greater_lateness_is_not_made_good_in_full(engine: Engine) -> None:
    was_free_since(engine, seconds=60)
    note_slots(engine)
    run(take_slot(pacing_on(engine, calls_per_second=0.01)))
    [moment] = slots_of(engine)
    assert next_free_at(engine) == moment + timedelta(seconds=105)


def test_zero_calls_a_second_means_no_spacing(engine: Engine) -> None:
    async def never(seconds: float) -> None:
        raise AssertionError("nobody has to wait")

    async def work() -> None:
        pacing = pacing_on(engine, calls_per_second=0, sleep=never)
        await asyncio.gather(*(take_slot(pacing) for _ in range(20)))

    run(work())


@pytest.mark.parametrize("calls_per_second", [0, 5])
def test_a_push_back_holds_everyone_in_every_process(
    engine: Engine, other_engine: Engine, calls_per_second: float
) -> None:
    note_slots(engine)

    async def work() -> datetime:
        pacings = [
            pacing_on(it, calls_per_second=calls_per_second) for it in (engine, other_engine)
        ]
        await pacings[0].push_back(0.4)
        until = next_free_at(engine)
        await asyncio.gather(*(take_slot(it) for it in pacings))
        return until

    until = run(work())
    assert min(slots_of(engine)) >= until


def test_a_push_back_binds_those_who_wait_already(engine: Engine, other_engine: Engine) -> None:
    note_slots(engine)

    async def work() -> datetime:
        sleepers = [Sleeper(), Sleeper()]
        pacings = [
            pacing_on(it, calls_per_second=2, sleep=sleeper.sleep)
            for it, sleeper in zip((engine, other_engine), sleepers, strict=True)
        ]
        await take_slot(pacings[0])
        waiters = [asyncio.create_task(take_slot(it)) for it in pacings]
        for sleeper in sleepers:
            await sleeper.asleep.wait()
        await pacings[1].push_back(0.8)
        until = next_free_at(engine)
        await asyncio.gather(*waiters)
        return until

    until = run(work())
    moments = slots_of(engine)
    assert len(moments) == 3
    assert moments[1] >= until
    assert min(seconds(moments)) >= 0.5


def test_a_shorter_push_back_does_not_cut_a_longer_one_short(engine: Engine) -> None:
    async def work() -> tuple[datetime, datetime]:
        pacing = pacing_on(engine)
        await pacing.push_back(45)
        until = next_free_at(engine)
        await pacing.push_back(5)
        return until, next_free_at(engine)

    before, after = run(work())
    assert before == after


def test_instances_do_not_hold_each_other_up(engine: Engine) -> None:
    async def work() -> None:
        await pacing_on(engine, "slow").push_back(3600)
        await take_slot(pacing_on(engine, "main", calls_per_second=0.01))
        await take_slot(pacing_on(engine, "second", calls_per_second=0.01))

    run(work())


def test_callers_of_one_process_are_served_as_they_came(engine: Engine) -> None:
    async def work() -> list[int]:
        pacing, served = pacing_on(engine, calls_per_second=100), []

        async def caller(number: int) -> None:
            async with pacing.slot():
                served.append(number)

        await asyncio.gather(*(caller(number) for number in range(15)))
        return served

    assert run(work()) == list(range(15))


def test_who_goes_ahead_waits_for_two_others_at_most(engine: Engine) -> None:
    async def work() -> list[str]:
        pacing, served = pacing_on(engine, calls_per_second=100), []

        async def caller(name: str, *, ahead: bool = False) -> None:
            async with pacing.slot(ahead=ahead):
                served.append(name)

        others = [caller(name) for name in "abcdefgh"]
        await asyncio.gather(*others, caller("ahead", ahead=True))
        return served

    served = run(work())
    assert served.index("ahead") <= 2
    assert [name for name in served if name != "ahead"] == list("abcdefgh")


def test_a_cancelled_waiter_holds_up_nobody_and_takes_no_slot(engine: Engine) -> None:
    note_slots(engine)

    async def work() -> None:
        sleeper = Sleeper()
        pacing = pacing_on(engine, calls_per_second=4, sleep=sleeper.sleep)
        await take_slot(pacing)
        first, second = (asyncio.create_task(take_slot(pacing)) for _ in range(2))
        await sleeper.asleep.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await second

    run(work())
    assert len(slots_of(engine)) == 2
    assert slots_taken(engine) == 0


def test_one_pacing_serves_one_event_loop_after_another(engine: Engine) -> None:
    note_slots(engine)
    pacing = pacing_on(engine, calls_per_second=50)

    async def three() -> None:
        await asyncio.gather(*(take_slot(pacing) for _ in range(3)))

    run(three())
    run(three())
    assert len(slots_of(engine)) == 6
    assert min(seconds(slots_of(engine))) >= 0.02


def test_a_first_use_by_two_at_once_makes_one_row(engine: Engine, other_engine: Engine) -> None:
    async def work() -> None:
        with other_engine.connect() as connection:
            # The other one has made the row, and is not done yet.
            connection.execute(text("INSERT INTO bison_pacing VALUES ('main', clock_timestamp())"))
            ours = asyncio.create_task(take_slot(pacing_on(engine)))
            await until_somebody_waits(engine)
            connection.commit()
        await ours

    run(work())
    with engine.connect() as connection:
        assert connection.scalars(text("SELECT instance FROM bison_pacing")).all() == ["main"]
