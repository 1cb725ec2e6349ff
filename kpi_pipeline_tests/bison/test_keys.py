import json
import logging

import httpx
import pytest
from pydantic import SecretStr

from kpi_pipeline.bison import (
    DailySeries,
    KeyUse,
    MalformedAnswer,
    MissingKey,
    Reading,
    RejectedKey,
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
    SERIES,
    SWITCH,
    USERS,
    WORKSPACE_KEY,
    Handler,
    LocalLock,
    Script,
    answer,
    client_for,
    error_answer,
    run,
    series,
    through_master_key,
    whoami,
)


async def one_day(reader: WorkspaceReader) -> DailySeries:
    return await reader.daily_series(DAY, DAY)


def read(
    handler: Handler,
    key: SecretStr | None,
    ref: WorkspaceRef = HARBOR,
    master_key: SecretStr | None = MASTER_KEY,
    lock: LocalLock | None = None,
) -> Reading[DailySeries]:
    async def work() -> Reading[DailySeries]:
        async with client_for(handler, master_key=master_key, lock=lock) as client:
            reading = await client.read_as(ref, key, one_day)
            assert reading.calls == client.calls_made
            return reading

    return run(work())


def check_key(handler: Handler, key: SecretStr = WORKSPACE_KEY) -> None:
    async def work() -> None:
        async with client_for(handler) as client:
            await client.check_key(HARBOR, key)

    run(work())


def calls_of(script: Script, key: SecretStr) -> list[str]:
    """The requests, all of which were sent with this API key."""
    for request in script.requests:
        assert request.headers["Authorization"] == f"Bearer {key.get_secret_value()}"
    return [f"{request.method} {request.url.path}" for request in script.requests]


def test_a_workspace_key_reads_directly_and_leaves_the_master_key_alone() -> None:
    script, lock = Script(answer(series(DAY, DAY))), LocalLock()
    reading = read(script, WORKSPACE_KEY, lock=lock)
    assert reading.value.days[DAY].sent == 12
    assert (reading.key_used, reading.calls) == (KeyUse.WORKSPACE, 1)
    assert calls_of(script, WORKSPACE_KEY) == [f"GET {SERIES}"]
    assert lock.holders == []


def test_without_a_key_of_its_own_a_client_is_read_with_the_master_key() -> None:
    script, lock = through_master_key(9), LocalLock()
    reading = read(script, None, ORCHARD, lock=lock)
    assert reading.value.days[DAY].sent == 12
    assert (reading.key_used, reading.calls) == (KeyUse.MASTER, 4)
    assert calls_of(script, MASTER_KEY) == [
        f"POST {SWITCH}",
        f"GET {USERS}",
        f"GET {SERIES}",
        f"GET {USERS}",
    ]
    assert json.loads(script.requests[0].content) == {"team_id": 9}
    assert lock.holders == ["main"]


def test_without_any_key_the_error_says_what_to_set_and_nothing_is_sent() -> None:
    script = Script(answer(series(DAY, DAY)))
    with pytest.raises(MissingKey) as caught:
        read(script, None, master_key=None)
    assert caught.value.client == "blue-harbor"
    assert "api_key in the CSV" in caught.value.remedy
    assert "a super-admin key in KPI_BISON_INSTANCES" in caught.value.remedy
    assert script.requests == []


def test_the_list_needs_a_master_key_and_says_so() -> None:
    async def work() -> None:
        async with client_for(Script(answer([])), master_key=None) as client:
            await client.list_workspaces()

    with pytest.raises(MissingKey, match=r"instance main: .* key in KPI_BISON_INSTANCES"):
        run(work())


@pytest.mark.parametrize(("key", "way"), [(WORKSPACE_KEY, "workspace key"), (None, "master key")])
def test_the_kind_of_key_is_logged_without_the_key(
    key: SecretStr | None, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="kpi_pipeline.bison"):
        read(Script(answer(series(DAY, DAY))) if key else through_master_key(7), key)
    [message] = [record.getMessage() for record in caplog.records if "kpi" in record.name]
    assert "blue-harbor" in message
    assert way in message


def test_the_calls_of_a_reading_count_its_own_tries_alone() -> None:
    script = Script(error_answer(503, "Down"), error_answer(503, "Down"), answer([]))

    async def plan(reader: WorkspaceReader) -> int:
        return await reader.sending_plan("today")

    async def work() -> tuple[int, int, int]:
        async with client_for(script) as client:
            first = await client.read_as(HARBOR, WORKSPACE_KEY, plan)
            second = await client.read_as(HARBOR, WORKSPACE_KEY, plan)
            return first.calls, second.calls, client.calls_made

    assert run(work()) == (3, 1, 4)


def test_a_key_of_the_right_workspace_passes() -> None:
    script = Script(whoami(7))
    check_key(script)
    assert [f"{r.method} {r.url.path}" for r in script.requests] == [f"GET {USERS}"]
    assert script.requests[0].headers["Authorization"].endswith(WORKSPACE_KEY.get_secret_value())


def test_a_key_of_another_workspace_is_refused_and_both_are_named() -> None:
    with pytest.raises(WrongWorkspace, match=r"workspace 12 \(Team 12\), not to 7"):
        check_key(Script(whoami(12)))


@pytest.mark.parametrize(
    "data", [{}, {"team": None}, {"team": {}}, {"team": {"id": None}}, {"team": {"id": True}}, []]
)
def test_an_answer_that_names_no_workspace_proves_nothing(data: object) -> None:
    with pytest.raises(MalformedAnswer):
        check_key(Script(answer(data)))


@pytest.mark.parametrize("status", [401, 403])
def test_a_rejected_key_is_never_retried(status: int) -> None:
    script = Script(error_answer(status, "Unauthenticated."), whoami(7))
    with pytest.raises(RejectedKey):
        check_key(script)
    assert len(script.requests) == 1


@pytest.mark.parametrize("text", ["", "7|abc\n", "7|abc def", "7|“abc”"])
def test_a_key_that_does_not_fit_into_a_header_is_neither_sent_nor_shown(text: str) -> None:
    script = Script(whoami(7))
    with pytest.raises(RejectedKey) as caught:
        check_key(script, SecretStr(text))
    assert script.requests == []
    assert "abc" not in str(caught.value)


def test_a_workspace_that_is_gone_is_an_error_of_its_own_and_not_retried() -> None:
    script = Script(error_answer(404, "record_not_found"))
    with pytest.raises(WorkspaceGone, match=r"blue-harbor: .*404"):
        read(script, WORKSPACE_KEY)
    assert len(script.requests) == 1


def test_a_client_of_another_instance_is_never_fetched_from_this_one() -> None:
    stranger = WorkspaceRef("blue-harbor", "second", 7)
    script = Script(whoami(7))

    async def check() -> None:
        async with client_for(script) as client:
            await client.check_key(stranger, WORKSPACE_KEY)

    with pytest.raises(ValueError, match="client of instance second, and this is instance main"):
        read(script, WORKSPACE_KEY, stranger)
    with pytest.raises(ValueError, match="client of instance second"):
        run(check())
    assert script.requests == []


def test_a_session_cookie_does_not_travel_with_the_next_key() -> None:
    seen = []

    async def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("Cookie"))
        response = whoami(7)
        response.headers["Set-Cookie"] = "session=of-the-first-key; Path=/"
        return response

    async def work() -> None:
        async with client_for(handler) as client:
            await client.check_key(HARBOR, WORKSPACE_KEY)
            await client.check_key(HARBOR, WORKSPACE_KEY)

    run(work())
    assert seen == [None, None]
