import asyncio
import statistics
import time

import httpx
import pytest
from starlette.applications import Starlette

from bison_sandbox import SandboxError, SandboxOptions
from bison_sandbox.calls import Bottleneck, Latency, QueueTooLongError
from kpi_pipeline_tests.bison_sandbox.running import WORKSPACES, Bison, Stage, bison_on, options


class HandClock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


async def burst(bison: Bison, calls: int) -> list[httpx.Response]:
    headers = {"Authorization": f"Bearer {bison.master_key}"}
    limits = httpx.Limits(max_connections=calls)
    async with httpx.AsyncClient(
        base_url=bison.http.base_url, headers=headers, timeout=30, limits=limits
    ) as http:
        return list(await asyncio.gather(*(http.get("/api/users") for _ in range(calls))))


def test_calls_wait_in_line_for_the_next_free_moment() -> None:
    clock = HandClock()
    bottleneck = Bottleneck(4, 10, clock)
    assert [bottleneck.reserve_slot() for _ in range(3)] == [0.0, 0.25, 0.5]
    clock.seconds += 0.5
    assert bottleneck.reserve_slot() == 0.25
    clock.seconds += 60
    assert bottleneck.reserve_slot() == 0.0


def test_a_queue_beyond_the_longest_is_refused_and_grows_no_further() -> None:
    clock = HandClock()
    bottleneck = Bottleneck(2, 10, clock)
    for _ in range(21):
        bottleneck.reserve_slot()
    for _ in range(3):
        with pytest.raises(QueueTooLongError) as refused:
            bottleneck.reserve_slot()
        assert refused.value.retry_after == 11
    clock.seconds += 0.5
    assert bottleneck.reserve_slot() == 10.0


def test_no_limit_lets_everything_through() -> None:
    bottleneck = Bottleneck(0, 0, HandClock())
    assert {bottleneck.reserve_slot() for _ in range(1_000)} == {0.0}


def test_latency_varies_around_its_mean_and_comes_from_the_seed() -> None:
    latency = Latency(0.25, 7)
    drawn = [latency.draw(slow_tail=False) for _ in range(5_000)]
    assert statistics.mean(drawn) == pytest.approx(0.25, rel=0.05)
    assert len(set(drawn)) == 5_000
    again = Latency(0.25, 7)
    assert [again.draw(slow_tail=False) for _ in range(10)] == drawn[:10]
    assert Latency(0, 7).draw(slow_tail=True) == 0.0


def test_the_slow_tail_makes_a_quarter_of_the_calls_several_times_as_long() -> None:
    latency = Latency(0.25, 7)
    drawn = [latency.draw(slow_tail=True) for _ in range(5_000)]
    # Three quarters at the mean, and one quarter at 6 times the mean.
    assert statistics.mean(drawn) == pytest.approx(0.25 * 2.25, rel=0.08)


def test_calls_side_by_side_share_one_bottleneck(stage: Stage) -> None:
    with bison_on(stage, options(calls_per_second=20)) as bison:
        begun = time.monotonic()
        responses = asyncio.run(burst(bison, 11))
        took = time.monotonic() - begun
    assert {response.status_code for response in responses} == {200}
    assert took >= 0.49


def test_a_queue_that_is_too_long_answers_429_with_retry_after(stage: Stage) -> None:
    with bison_on(stage, options(calls_per_second=0.01)) as bison:
        assert bison.get("/api/users").status_code == 200
        refused = bison.get("/api/users")
        assert refused.status_code == 429
        assert 80 < int(refused.headers["Retry-After"]) <= 100
        assert refused.json()["data"]["success"] is False
        assert bison.http.get("/api/users").status_code == 429
        assert bison.http.get("/sandbox/setup").status_code == 200
        assert [call["status"] for call in bison.calls()] == [200, 429, 429]


def test_a_queue_of_half_a_minute_is_served_and_the_bound_is_a_setting(stage: Stage) -> None:
    shown = SandboxOptions().longest_queue
    bottleneck = Bottleneck(1, shown, HandClock())
    assert [bottleneck.reserve_slot() for _ in range(31)][-1] == 30.0
    with bison_on(stage, options(calls_per_second=5, longest_queue=0)) as bison:
        assert [bison.get("/api/users").status_code for _ in range(2)] == [200, 429]
    with pytest.raises(SandboxError, match="longest queue must be 0"):
        SandboxOptions(longest_queue=-1)


def test_a_call_takes_its_latency(stage: Stage) -> None:
    with bison_on(stage, options(latency=0.1)) as bison:
        begun = time.monotonic()
        for _ in range(4):
            bison.data("/api/users")
        assert time.monotonic() - begun > 0.1


class NotedLatency(Latency):
    """Takes no time, and notes for which calls it was asked for the slow tail."""

    def __init__(self) -> None:
        super().__init__(0, 7)
        self.noted: list[bool] = []

    def draw(self, *, slow_tail: bool) -> float:
        self.noted.append(slow_tail)
        return 0.0


def test_only_the_largest_workspaces_numbers_have_a_slow_tail(stage: Stage, bison: Bison) -> None:
    latency = NotedLatency()
    assert isinstance(stage.app, Starlette)
    stage.app.state.sandbox.latency = latency
    rows = sorted(bison.with_key(), key=lambda row: int(row["monthly_sending_target"]))
    small, largest = rows[0], rows[-1]
    period = {"start_date": "2026-03-01", "end_date": "2026-03-02"}
    for path in (f"{WORKSPACES}/stats", f"{WORKSPACES}/line-area-chart-stats", "/api/users"):
        bison.data(path, key=small["api_key"], **period)
        bison.data(path, key=largest["api_key"], **period)
    assert latency.noted == [False, True, False, True, False, False]
    bison.switch(int(largest["bison_workspace_id"]))
    bison.data(f"{WORKSPACES}/stats", **period)
    assert latency.noted[-2:] == [False, True]
