"""What a reading cost: its requests, its time in calls, and its time of waiting apart from it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from kpi_pipeline.bison import CallStats, DailySeries, WorkspaceReader, counting_calls
from kpi_pipeline_tests.bison.support import (
    DAY,
    HARBOR,
    ORCHARD,
    WORKSPACE_KEY,
    Handler,
    LocalLock,
    RecordingPacing,
    Script,
    answer,
    client_for,
    run,
    series,
    through_master_key,
    whoami,
)

PAUSE = 0.05
ANSWER = answer(series(DAY, DAY))


class SlowPacing(RecordingPacing):
    @asynccontextmanager
    async def slot(self, *, ahead: bool = False) -> AsyncIterator[None]:
        await asyncio.sleep(PAUSE)
        async with super().slot(ahead=ahead):
            yield


class SlowLock(LocalLock):
    @asynccontextmanager
    async def held(self, instance: str) -> AsyncIterator[None]:
        await asyncio.sleep(PAUSE)
        async with super().held(instance):
            yield


async def one_day(reader: WorkspaceReader) -> DailySeries:
    return await reader.daily_series(DAY, DAY)


def slow(handler: Handler) -> Handler:
    async def slowly(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(PAUSE)
        return await handler(request)

    return slowly


def test_time_in_calls_and_time_of_waiting_are_counted_apart() -> None:
    async def work() -> tuple[CallStats, CallStats]:
        async with client_for(slow(Script(ANSWER))) as client:
            with counting_calls(CallStats()) as in_calls:
                await client.read_as(HARBOR, WORKSPACE_KEY, one_day)
        async with client_for(
            through_master_key(9), pacing=SlowPacing(), lock=SlowLock()
        ) as client:
            with counting_calls(CallStats()) as waiting:
                await client.read_as(ORCHARD, None, one_day)
        return in_calls, waiting

    in_calls, waiting = run(work())
    assert in_calls.made == 1
    assert in_calls.calling_seconds >= PAUSE > in_calls.waiting_seconds
    # The lock, and a slot for each of the four calls.
    assert waiting.made == 4
    assert waiting.waiting_seconds >= 5 * PAUSE > waiting.calling_seconds


def test_the_pauses_of_a_slow_switch_are_waiting() -> None:
    async def work() -> CallStats:
        shown = (1, 1, 9)
        script = Script(answer({"name": "Team"}), *map(whoami, shown), ANSWER, whoami(9))
        async with client_for(script) as client:
            with counting_calls(CallStats()) as stats:
                await client.read_as(ORCHARD, None, one_day)
            return stats

    # The fake sleep took no time; what counts is what was waited for.
    assert run(work()).waiting_seconds >= 0.25 + 0.5


def test_tasks_side_by_side_are_counted_apart_and_all_add_to_the_block_around_them() -> None:
    async def work() -> tuple[int, int, int]:
        async with client_for(Script(ANSWER)) as client:

            async def reading(times: int) -> int:
                with counting_calls(CallStats()) as own:
                    for _ in range(times):
                        await client.read_as(HARBOR, WORKSPACE_KEY, one_day)
                return own.made

            with counting_calls(CallStats()) as outer:
                first, second = await asyncio.gather(reading(1), reading(3))
                await reading(2)
            return first, second, outer.made

    assert run(work()) == (1, 3, 6)


def test_what_a_failed_piece_of_work_cost_is_counted_all_the_same() -> None:
    async def work() -> CallStats:
        stats = CallStats()
        async with client_for(Script(ANSWER)) as client:
            try:
                with counting_calls(stats):
                    await client.read_as(HARBOR, WORKSPACE_KEY, one_day)
                    raise RuntimeError("the work's own error")
            except RuntimeError:
                return stats
        return stats

    assert run(work()).made == 1
