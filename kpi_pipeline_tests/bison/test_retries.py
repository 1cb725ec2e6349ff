import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from kpi_pipeline.bison import (
    ClientOptions,
    RateLimited,
    Reading,
    RefusedRequest,
    Unavailable,
    WorkspaceReader,
)
from kpi_pipeline_tests.bison.support import (
    HARBOR,
    WORKSPACE_KEY,
    Handler,
    RecordingPacing,
    Script,
    answer,
    client_for,
    error_answer,
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
    "failure",
    [
        HTML,
        error_answer(500, "Server Error"),
        error_answer(408, "Time-out"),
        error_answer(429, "Too Many Attempts."),
        httpx.ReadTimeout("slow"),
        httpx.ConnectTimeout("slow"),
        httpx.ConnectError("refused"),
        httpx.RemoteProtocolError("cut off"),
        httpx.ReadError("reset"),
    ],
)
def test_a_transient_error_is_retried_in_a_new_slot(
    failure: httpx.Response | Exception,
) -> None:
    pacing = RecordingPacing()
    reading = read(Script(failure, failure, PLAN), pacing)
    assert (reading.value, reading.calls, pacing.slots) == (5, 3, 3)


@pytest.mark.parametrize("status", [301, 302, 400, 405, 409, 418, 422])
def test_a_refused_request_is_never_retried_nor_redirected(status: int) -> None:
    script = Script(error_answer(status, "No", Location="https://elsewhere.example/"), PLAN)
    with pytest.raises(RefusedRequest) as caught:
        read(script)
    assert caught.value.status == status
    assert len(script.requests) == 1


def test_a_server_that_stays_down_is_given_up_after_the_last_try_and_the_error_says_why() -> None:
    script = Script(HTML)
    with pytest.raises(Unavailable) as caught:
        read(script, options=ClientOptions(attempts=3))
    assert len(script.requests) == 3
    assert "answered 502 at try 3 of 3" in str(caught.value)
    assert "gateway" not in str(caught.value)


def test_the_error_names_the_kind_of_a_connection_that_stays_broken() -> None:
    with pytest.raises(Unavailable, match="ConnectError All connection attempts failed"):
        read(Script(httpx.ConnectError("All connection attempts failed")))


def test_a_rate_limit_that_stays_is_given_up_and_pushed_everyone_back_each_time() -> None:
    pacing = RecordingPacing()
    limited = error_answer(429, "Too Many Attempts.", **{"Retry-After": "7"})
    with pytest.raises(RateLimited, match=r"429 \(Too Many Attempts\) at try 5 of 5"):
        read(Script(limited), pacing)
    assert len(pacing.pushes) == 5
    assert all(7 <= seconds < 8 for seconds in pacing.pushes)


def test_a_429_with_seconds_pushes_everyone_back_for_that_long() -> None:
    pacing = RecordingPacing()
    read(Script(error_answer(429, "Slow", **{"Retry-After": "12"}), PLAN), pacing)
    [push] = pacing.pushes
    assert 12 <= push < 13


def test_a_429_with_a_date_pushes_everyone_back_until_then() -> None:
    pacing = RecordingPacing()
    until = "Wed, 04 Mar 2026 12:00:30 GMT"
    read(Script(error_answer(429, "Slow", **{"Retry-After": until}), PLAN), pacing)
    [push] = pacing.pushes
    assert 30 <= push < 31


def test_a_429_without_a_header_pushes_everyone_back_45_to_60_seconds() -> None:
    pacing = RecordingPacing()
    read(Script(error_answer(429, "Slow"), PLAN), pacing)
    [push] = pacing.pushes
    assert 45 <= push <= 60


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
