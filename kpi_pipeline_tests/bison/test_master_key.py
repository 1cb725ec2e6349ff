import asyncio
import json
from collections.abc import Callable
from itertools import pairwise

import httpx
import pytest

from kpi_pipeline.bison import (
    ClientOptions,
    DailySeries,
    KeyUse,
    MalformedAnswer,
    Reading,
    WorkspaceGone,
    WorkspaceReader,
    WorkspaceRef,
    WrongWorkspace,
)
from kpi_pipeline_tests.bison.support import (
    DAY,
    HARBOR,
    MASTER_KEY,
    ORCHARD,
    PLAN,
    SERIES,
    SWITCH,
    USERS,
    WORKSPACE_KEY,
    Handler,
    LocalLock,
    RecordingPacing,
    answer,
    client_for,
    error_answer,
    run,
    series_for,
    whoami,
)


class FakeInstance:
    """An Email Bison whose master key acts in the workspace of the last switch.

    Workspace N sends N × 1,000 emails a day. `polls_until_switched` is how many calls of
    `/api/users` still show the workspace before; `after_series` runs after each answered series.
    """

    def __init__(
        self,
        polls_until_switched: int = 0,
        after_series: Callable[["FakeInstance"], None] = lambda _: None,
    ) -> None:
        self.master_team = 1
        self.log: list[tuple[str, int]] = []
        self.most_master_calls_at_once = 0
        self._master_calls_under_way = 0
        self._polls_until_switched = self._polls_left = polls_until_switched
        self._switching_to: int | None = None
        self._after_series = after_series

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        if token == WORKSPACE_KEY.get_secret_value():
            await asyncio.sleep(0)
            return self._answer(request, 7)
        if token != MASTER_KEY.get_secret_value():
            return error_answer(401, "Unauthenticated.")
        self._master_calls_under_way += 1
        self.most_master_calls_at_once = max(
            self.most_master_calls_at_once, self._master_calls_under_way
        )
        await asyncio.sleep(0)
        self._master_calls_under_way -= 1
        if request.url.path == USERS:
            self._poll()
        reply = self._answer(request, self.master_team)
        if request.url.path == SWITCH:
            self._switching_to = json.loads(request.content)["team_id"]
            self._polls_left = self._polls_until_switched
            if not self._polls_left:
                self._poll()
        return reply

    def _answer(self, request: httpx.Request, team: int) -> httpx.Response:
        path = request.url.path
        self.log.append((f"{request.method} {path}", team))
        if path == SERIES:
            reply = series_for(request, sent=team * 1000)
            self._after_series(self)
            return reply
        if path == USERS:
            return whoami(team)
        if path == PLAN:
            return answer([{"emails_being_sent": team}])
        if path == SWITCH:
            return answer({"name": "Team"})
        return error_answer(404, "record_not_found")

    def _poll(self) -> None:
        self._polls_left -= 1
        if self._switching_to is not None and self._polls_left < 0:
            self.master_team, self._switching_to = self._switching_to, None


class RecordingSleep:
    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.pauses.append(seconds)


async def one_day(reader: WorkspaceReader) -> DailySeries:
    return await reader.daily_series(DAY, DAY)


def read_with_master_key(
    handler: Handler, sleep: RecordingSleep | None = None, timeout: float = 10
) -> Reading[DailySeries]:
    async def work() -> Reading[DailySeries]:
        options = ClientOptions(switch_timeout_seconds=timeout)
        async with client_for(handler, options=options, sleep=sleep) as client:
            return await client.read_as(HARBOR, None, one_day)

    return run(work())


def test_calls_with_the_master_key_go_ahead_of_the_others() -> None:
    pacing = RecordingPacing()

    async def work() -> None:
        async with client_for(FakeInstance(), pacing=pacing) as client:
            await client.read_as(ORCHARD, WORKSPACE_KEY, one_day)
            assert (pacing.slots, pacing.ahead) == (1, 0)
            await client.read_as(HARBOR, None, one_day)

    run(work())
    assert (pacing.slots, pacing.ahead) == (5, 4)


def test_readers_side_by_side_on_one_master_key_never_see_each_others_numbers() -> None:
    instance = FakeInstance(polls_until_switched=1)
    refs = [WorkspaceRef(f"client-{n}", "main", n) for n in range(2, 7)]

    async def two_calls(reader: WorkspaceReader) -> tuple[int, int]:
        found = await reader.daily_series(DAY, DAY)
        return found.days[DAY].sent, await reader.sending_plan("today")

    async def work() -> list[Reading[tuple[int, int]]]:
        async with client_for(instance) as client:
            return await asyncio.gather(*(client.read_as(ref, None, two_calls) for ref in refs))

    readings = run(work())
    assert [reading.value for reading in readings] == [(n * 1000, n) for n in range(2, 7)]
    assert instance.most_master_calls_at_once == 1
    switches = [number for number, (call, _) in enumerate(instance.log) if SWITCH in call]
    uses = [
        {team for _, team in instance.log[start + 2 : end]}
        for start, end in pairwise([*switches, len(instance.log)])
    ]
    # After each switch and the first poll, which still shows the workspace before, one alone.
    assert sorted(uses, key=min) == [{n} for n in range(2, 7)]


def test_calls_side_by_side_within_one_reading_are_sent_one_after_another() -> None:
    instance = FakeInstance()

    async def side_by_side(reader: WorkspaceReader) -> int:
        found = await asyncio.gather(*(one_day(reader) for _ in range(4)))
        return sum(part.days[DAY].sent for part in found)

    async def work() -> Reading[int]:
        async with client_for(instance) as client:
            return await client.read_as(HARBOR, None, side_by_side)

    assert run(work()).value == 28_000
    assert instance.most_master_calls_at_once == 1


def test_a_client_with_its_own_key_does_not_wait_for_the_master_key() -> None:
    instance, lock = FakeInstance(), LocalLock()

    async def work() -> Reading[DailySeries]:
        async with client_for(instance, lock=lock) as client, lock.held("main"):
            return await client.read_as(HARBOR, WORKSPACE_KEY, one_day)

    assert run(work()).key_used is KeyUse.WORKSPACE


def test_the_lock_is_free_again_after_a_reading_that_failed() -> None:
    instance = FakeInstance()

    async def broken(reader: WorkspaceReader) -> None:
        raise RuntimeError("the reader's own error")

    async def work() -> int:
        async with client_for(instance) as client:
            with pytest.raises(RuntimeError, match="own error"):
                await client.read_as(HARBOR, None, broken)
            return (await client.read_as(ORCHARD, None, one_day)).value.days[DAY].sent

    assert run(work()) == 9000


def test_a_slow_switch_is_waited_for_with_growing_pauses() -> None:
    instance, sleep = FakeInstance(polls_until_switched=4), RecordingSleep()
    reading = read_with_master_key(instance, sleep)
    assert reading.value.days[DAY].sent == 7000
    assert sleep.pauses == [0.25, 0.5, 1.0, 2.0]
    assert reading.calls == 8
    assert {team for call, team in instance.log if SERIES in call} == {7}


def test_a_switch_without_effect_is_given_up_after_its_time_out() -> None:
    instance, sleep = FakeInstance(polls_until_switched=1000), RecordingSleep()
    with pytest.raises(WrongWorkspace, match=r"workspace 1 \(Team 1\) 5 s after .* workspace 7"):
        read_with_master_key(instance, sleep, timeout=5)
    # Switched again each time: it may have been switched back right after.
    assert [call for call, _ in instance.log].count(f"POST {SWITCH}") == 4
    assert sum(sleep.pauses) == 4 * 5
    assert [call for call, _ in instance.log if SERIES in call] == []


def moved_to_nine(times: int) -> FakeInstance:
    moves = iter(range(times))

    def move(instance: FakeInstance) -> None:
        if next(moves, None) is not None:
            instance.master_team = 9

    return FakeInstance(after_series=move)


def test_a_value_read_while_somebody_moved_the_key_is_thrown_away_and_read_again() -> None:
    instance = moved_to_nine(times=1)
    reading = read_with_master_key(instance)
    assert reading.value.days[DAY].sent == 7000
    assert [call for call, _ in instance.log].count(f"GET {SERIES}") == 2
    assert reading.calls == 8


def test_numbers_of_the_workspace_that_the_key_was_moved_to_are_never_returned() -> None:
    instance = FakeInstance()
    rounds = []

    async def two_days(reader: WorkspaceReader) -> list[int]:
        rounds.append(1)
        first = (await one_day(reader)).days[DAY].sent
        if len(rounds) == 1:
            instance.master_team = 9
        return [first, (await one_day(reader)).days[DAY].sent]

    async def work() -> Reading[list[int]]:
        async with client_for(instance) as client:
            return await client.read_as(HARBOR, None, two_days)

    assert run(work()).value == [7000, 7000]
    assert (f"GET {SERIES}", 9) in instance.log


def test_a_key_that_is_moved_three_times_is_still_read_at_the_third_repeat() -> None:
    assert read_with_master_key(moved_to_nine(times=3)).value.days[DAY].sent == 7000


def test_a_key_that_is_moved_every_time_is_given_up_after_three_repeats() -> None:
    instance = moved_to_nine(times=1000)
    with pytest.raises(
        WrongWorkspace,
        match=r"in workspace 9 \(Team 9\) after the reading of workspace 7, in the last of 4",
    ):
        read_with_master_key(instance)
    assert [call for call, _ in instance.log].count(f"GET {SERIES}") == 4


def test_a_key_that_was_moved_away_right_after_the_switch_is_switched_again() -> None:
    instance = FakeInstance()
    switches = []

    async def handler(request: httpx.Request) -> httpx.Response:
        response = await instance(request)
        if request.url.path == SWITCH:
            switches.append(request)
            if len(switches) == 1:
                instance.master_team = 9
        return response

    sleep = RecordingSleep()
    reading = read_with_master_key(handler, sleep, timeout=5)
    assert reading.value.days[DAY].sent == 7000
    assert len(switches) == 2
    assert {team for call, team in instance.log if SERIES in call} == {7}


def test_switching_to_a_workspace_that_is_gone_says_so() -> None:
    async def handler(request: httpx.Request) -> httpx.Response:
        return error_answer(404, "record_not_found")

    with pytest.raises(WorkspaceGone, match=rf"blue-harbor: POST {SWITCH} answered 404"):
        read_with_master_key(handler)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"success": False, "message": "Not your workspace"}, "Not your workspace"),
        ([], "another shape"),
        ({}, r"data\.name: Field required"),
    ],
)
def test_a_switch_that_is_not_confirmed_is_not_believed(data: object, reason: str) -> None:
    async def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == SWITCH:
            return answer(data)
        return whoami(7) if request.url.path == USERS else series_for(request)

    with pytest.raises(MalformedAnswer, match=reason):
        read_with_master_key(handler)
