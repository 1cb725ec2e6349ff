import asyncio
import time
from itertools import pairwise

from kpi_pipeline.bison import InProcessPacing
from kpi_pipeline_tests.bison.support import run


class VirtualTime:
    """A clock that moves only when somebody sleeps; sleepers wake in the order of their times."""

    def __init__(self) -> None:
        self.now = 100.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        self._sleepers.append((self.now + seconds, event))
        await event.wait()

    async def finish(self, *work: asyncio.Task[None]) -> None:
        while not all(task.done() for task in work):
            for _ in range(20):
                await asyncio.sleep(0)
            if self._sleepers:
                self._sleepers.sort(key=lambda sleeper: sleeper[0])
                self.now, event = self._sleepers.pop(0)
                event.set()


def sends(
    calls_per_second: float, callers: int, push: tuple[float, float] | None = None
) -> list[float]:
    """Seconds from the start at which each caller was let go; `push` is (when, for how long)."""
    times: list[float] = []

    async def work() -> None:
        virtual = VirtualTime()
        pacing = InProcessPacing(calls_per_second, clock=virtual.clock, sleep=virtual.sleep)

        async def caller() -> None:
            await pacing.turn()
            times.append(round(virtual.now - 100, 6))

        async def pusher(when: float, seconds: float) -> None:
            await virtual.sleep(when)
            await pacing.push_back(seconds)

        tasks = [asyncio.create_task(caller()) for _ in range(callers)]
        if push:
            tasks.append(asyncio.create_task(pusher(*push)))
        await virtual.finish(*tasks)

    run(work())
    return sorted(times)


def test_sends_are_spaced_evenly_however_many_wait() -> None:
    assert sends(4, callers=5) == [0, 0.25, 0.5, 0.75, 1]


def test_after_a_quiet_time_there_is_no_burst() -> None:
    async def work() -> list[float]:
        virtual, times = VirtualTime(), []
        pacing = InProcessPacing(2, clock=virtual.clock, sleep=virtual.sleep)
        virtual.now += 60
        for _ in range(3):
            task = asyncio.create_task(pacing.turn())
            await virtual.finish(task)
            times.append(virtual.now - 160)
        return times

    assert run(work()) == [0, 0.5, 1]


def test_zero_calls_a_second_means_no_limit() -> None:
    assert sends(0, callers=50) == [0] * 50


def test_a_push_back_holds_everyone_those_who_wait_already_included() -> None:
    times = sends(4, callers=6, push=(0.3, 30))
    assert times[:2] == [0, 0.25]
    assert min(times[2:]) >= 30.3
    assert all(later - earlier >= 0.25 for earlier, later in pairwise(times[2:]))


def test_a_push_back_holds_without_a_limit_too() -> None:
    async def work() -> float:
        virtual = VirtualTime()
        pacing = InProcessPacing(0, clock=virtual.clock, sleep=virtual.sleep)
        await pacing.push_back(45)
        await virtual.finish(asyncio.create_task(pacing.turn()))
        return virtual.now

    assert run(work()) == 145


def test_a_shorter_push_back_does_not_cut_a_longer_one_short() -> None:
    async def work() -> float:
        virtual = VirtualTime()
        pacing = InProcessPacing(0, clock=virtual.clock, sleep=virtual.sleep)
        await pacing.push_back(45)
        await pacing.push_back(5)
        await virtual.finish(asyncio.create_task(pacing.turn()))
        return virtual.now

    assert run(work()) == 145


def test_one_pacing_serves_one_event_loop_after_another_in_real_time() -> None:
    pacing = InProcessPacing(50)

    async def three() -> None:
        await asyncio.gather(*(pacing.turn() for _ in range(3)))

    started = time.monotonic()
    run(three())
    run(three())
    assert 0.09 <= time.monotonic() - started < 5
