"""A 429 holds back everybody, unless it is the limit of one API key."""

import httpx
import pytest
from pydantic import SecretStr

from kpi_pipeline.bison import BisonClient, ClientOptions, RateLimited, WorkspaceReader
from kpi_pipeline_tests.bison.support import (
    HARBOR,
    ORCHARD,
    WORKSPACE_KEY,
    RecordingPacing,
    answer,
    client_for,
    error_answer,
    run,
)

PLAN = answer([{"emails_being_sent": 5}])
OTHER_KEY = SecretStr("9|" + "Oo7" * 16)


async def plan(reader: WorkspaceReader) -> int:
    return await reader.sending_plan("today")


async def limited_harbor(request: httpx.Request) -> httpx.Response:
    harbor = request.headers["Authorization"].endswith(WORKSPACE_KEY.get_secret_value())
    return error_answer(429, "Slow", **{"Retry-After": "7"}) if harbor else PLAN


async def refused(client: BisonClient) -> float:
    """One call of Harbor's that is answered 429; the seconds that it alone is to wait."""
    with pytest.raises(RateLimited) as caught:
        await client.read_as(HARBOR, WORKSPACE_KEY, plan)
    return caught.value.alone_seconds


def test_the_first_429_holds_back_everybody() -> None:
    pacing = RecordingPacing()

    async def work() -> float:
        async with client_for(
            limited_harbor, pacing=pacing, options=ClientOptions(attempts=1)
        ) as client:
            await client.read_as(ORCHARD, OTHER_KEY, plan)
            return await refused(client)

    assert run(work()) == 0
    assert len(pacing.pushes) == 1


def test_a_key_that_is_refused_while_others_are_answered_waits_alone() -> None:
    pacing = RecordingPacing()

    async def work() -> list[float]:
        async with client_for(
            limited_harbor, pacing=pacing, options=ClientOptions(attempts=1)
        ) as client:
            alone = [await refused(client)]
            for _ in range(3):
                await client.read_as(ORCHARD, OTHER_KEY, plan)
                alone.append(await refused(client))
            return alone

    first, *later = run(work())
    assert first == 0
    assert all(7 <= seconds < 8 for seconds in later)
    assert len(pacing.pushes) == 1


def test_a_limit_that_nobody_passes_is_the_instances_each_time() -> None:
    pacing = RecordingPacing()

    async def all_limited(request: httpx.Request) -> httpx.Response:
        return error_answer(429, "Slow", **{"Retry-After": "7"})

    async def work() -> None:
        async with client_for(
            all_limited, pacing=pacing, options=ClientOptions(attempts=3)
        ) as client:
            for ref, key in ((HARBOR, WORKSPACE_KEY), (ORCHARD, OTHER_KEY)):
                with pytest.raises(RateLimited):
                    await client.read_as(ref, key, plan)

    run(work())
    assert len(pacing.pushes) == 6


def test_a_key_that_was_answered_again_is_like_any_other() -> None:
    pacing, refusing = RecordingPacing(), [True, False, True]

    async def now_and_then(request: httpx.Request) -> httpx.Response:
        harbor = request.headers["Authorization"].endswith(WORKSPACE_KEY.get_secret_value())
        if harbor and refusing.pop(0):
            return error_answer(429, "Slow", **{"Retry-After": "7"})
        return PLAN

    async def work() -> float:
        async with client_for(
            now_and_then, pacing=pacing, options=ClientOptions(attempts=1)
        ) as client:
            await refused(client)
            await client.read_as(ORCHARD, OTHER_KEY, plan)
            await client.read_as(HARBOR, WORKSPACE_KEY, plan)
            return await refused(client)

    assert run(work()) == 0
    assert len(pacing.pushes) == 2
