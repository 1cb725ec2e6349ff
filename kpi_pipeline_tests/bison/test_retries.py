import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import stamina

from kpi_pipeline.bison import (
    ClientOptions,
    RateLimited,
    Reading,
    RefusedRequest,
    Unavailable,
    WorkspaceReader,
)
from kpi_pipeline.bison.retries import is_transient, seconds_to_wait, tries
from kpi_pipeline_tests.bison.support import (
    HARBOR,
    WORKSPACE_KEY,
    Handler,
    RecordingPacing,
    Script,
    answer,
    client_for,
    refusal,
    run,
)

PLAN = answer([{"emails_being_sent": 5}])
HTML = httpx.Response(502, html="<html><h1>Bad gateway</h1></html>")


async def plan(reader: WorkspaceReader) -> int:
    return await reader.sending_plan("today")


def read(
    handler: Handler,
    pacing: RecordingPacing | None = None,
    options: ClientOptions | None = None,
) -> Reading[int]:
    async def work() -> Reading[int]:
        async with client_for(handler, pacing=pacing, options=options) as client:
            return await client.read_as(HARBOR, WORKSPACE_KEY, plan)

    return run(work())


@pytest.mark.parametrize(
    "trouble",
    [
        HTML,
        refusal(500, "Server Error"),
        refusal(408, "Time-out"),
        refusal(429, "Too Many Attempts."),
        httpx.ReadTimeout("slow"),
        httpx.ConnectTimeout("slow"),
        httpx.ConnectError("refused"),
        httpx.RemoteProtocolError("cut off"),
        httpx.ReadError("reset"),
    ],
)
def test_trouble_that_passes_is_tried_again_after_a_new_turn(
    trouble: httpx.Response | Exception,
) -> None:
    pacing = RecordingPacing()
    reading = read(Script(trouble, trouble, PLAN), pacing)
    assert (reading.value, reading.calls, pacing.turns) == (5, 3, 3)


@pytest.mark.parametrize("status", [301, 302, 400, 405, 409, 418, 422])
def test_a_refused_request_is_never_retried_nor_redirected(status: int) -> None:
    script = Script(refusal(status, "No", Location="https://elsewhere.example/"), PLAN)
    with pytest.raises(RefusedRequest) as caught:
        read(script)
    assert caught.value.status == status
    assert len(script.requests) == 1


def test_one_place_says_which_statuses_may_pass() -> None:
    passing = [status for status in range(100, 600) if is_transient(status)]
    assert passing == [408, 429, *range(500, 600)]


def test_a_server_that_stays_down_is_given_up_after_the_last_try_and_what_was_seen_is_told() -> (
    None
):
    script = Script(HTML)
    with pytest.raises(Unavailable) as caught:
        read(script, options=ClientOptions(attempts=3))
    assert len(script.requests) == 3
    assert "answered 502 at try 3 of 3" in str(caught.value)
    assert "gateway" not in str(caught.value)


def test_a_broken_connection_that_stays_is_told_by_its_kind() -> None:
    with pytest.raises(Unavailable, match="ConnectError All connection attempts failed"):
        read(Script(httpx.ConnectError("All connection attempts failed")))


def test_a_rate_limit_that_stays_is_given_up_and_pushed_everyone_back_each_time() -> None:
    pacing = RecordingPacing()
    limited = refusal(429, "Too Many Attempts.", **{"Retry-After": "7"})
    with pytest.raises(RateLimited, match=r"429 \(Too Many Attempts\) at try 5 of 5"):
        read(Script(limited), pacing)
    assert len(pacing.pushes) == 5
    assert all(7 <= seconds < 8 for seconds in pacing.pushes)


def test_a_429_with_seconds_pushes_everyone_back_for_that_long() -> None:
    pacing = RecordingPacing()
    read(Script(refusal(429, "Slow", **{"Retry-After": "12"}), PLAN), pacing)
    [push] = pacing.pushes
    assert 12 <= push < 13


def test_a_429_with_a_date_pushes_everyone_back_until_then() -> None:
    pacing = RecordingPacing()
    until = "Wed, 04 Mar 2026 12:00:30 GMT"
    read(Script(refusal(429, "Slow", **{"Retry-After": until}), PLAN), pacing)
    [push] = pacing.pushes
    assert 30 <= push < 31


def test_a_429_without_a_wish_pushes_everyone_back_45_to_60_seconds() -> None:
    pacing = RecordingPacing()
    read(Script(refusal(429, "Slow"), PLAN), pacing)
    [push] = pacing.pushes
    assert 45 <= push <= 60


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 1),
        ("120", 120),
        ("86400", 120),
        (" 3 ", 3),
        ("Wed, 04 Mar 2026 11:00:00 GMT", 1),
        ("Thu, 05 Mar 2026 12:00:00 GMT", 120),
        ("Wed, 04 Mar 2026 12:00:05 -0000", 5),
        ("Wed, 04 Mar 2026 13:00:05 +0100", 5),
    ],
)
def test_a_wish_to_wait_is_kept_between_one_second_and_two_minutes(
    header: str, seconds: float
) -> None:
    wait = seconds_to_wait(header, datetime(2026, 3, 4, 12, tzinfo=UTC))
    assert seconds <= wait < seconds + 1


def test_two_who_were_told_the_same_time_do_not_come_back_at_one_moment() -> None:
    now = datetime(2026, 3, 4, 12, tzinfo=UTC)
    assert len({seconds_to_wait("5", now) for _ in range(5)}) == 5


@pytest.mark.parametrize(
    "header", [None, "", "soon", "-5", "1.5", "٣", "Wed, 99 Mar 2026 12:00:00"]
)
def test_a_wish_that_cannot_be_read_counts_as_none(header: str | None) -> None:
    assert 45 <= seconds_to_wait(header, datetime(2026, 3, 4, tzinfo=UTC)) <= 60


def test_between_tries_there_is_a_pause() -> None:
    async def first_pause() -> float:
        async for attempt in tries(5):
            return attempt.next_wait
        raise AssertionError("there was no try at all")

    with stamina.set_testing(False):
        assert run(first_pause()) >= 1


class Stalling(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'{"data": '
        await asyncio.Event().wait()


class Trickling(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("body", [Stalling(), Trickling()])
def test_a_stalled_body_ends_in_a_time_out_and_not_in_waiting_for_ever(
    body: httpx.AsyncByteStream,
) -> None:
    calls = []

    async def handler(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(200, stream=body)

    started = datetime.now(UTC)
    with pytest.raises(Unavailable, match=r"no answer at try 2 of 2: time-out \(0.05 s\)"):
        read(handler, options=ClientOptions(timeout_seconds=0.05, attempts=2))
    assert len(calls) == 2
    assert datetime.now(UTC) - started < timedelta(seconds=25)


def test_a_stalled_try_is_followed_by_one_that_is_answered() -> None:
    calls = []

    async def handler(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(200, stream=Stalling()) if len(calls) == 1 else PLAN

    assert read(handler, options=ClientOptions(timeout_seconds=0.05)).value == 5
