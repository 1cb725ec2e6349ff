"""What the client makes of an answer off the wire: the numbers, or None where it refuses it."""

import re
from collections.abc import Awaitable, Callable
from datetime import date
from typing import TypeVar

import httpx

from kpi_pipeline.bison import (
    BisonClient,
    BisonError,
    ClientOptions,
    DayCounts,
    PeriodStats,
    WorkspaceReader,
    WorkspaceRef,
    WrongWorkspace,
)
from kpi_pipeline_tests.bison.support import DAY, HARBOR, WORKSPACE_KEY, Handler, client_for, run
from kpi_pipeline_tests.bison.valid_answers import LAST
from kpi_pipeline_tests.bison.wire import Wire

T = TypeVar("T")

# Many more than the lists in these tests have pages.
MOST_PAGES = 30

_ELSEWHERE = WorkspaceRef(workspace="far-away", instance="main", bison_workspace_id=10**6)


def series_read(wire: Wire) -> dict[date, DayCounts] | None:
    """The counts of DAY to LAST."""

    async def read(reader: WorkspaceReader) -> dict[date, DayCounts]:
        return dict((await reader.daily_series(DAY, LAST)).days)

    return _told(_always(wire), lambda client: _read_as(client, read))


def plan_read(wire: Wire) -> int | None:
    """The emails planned for today."""

    async def read(reader: WorkspaceReader) -> int:
        return await reader.sending_plan("today")

    return _told(_always(wire), lambda client: _read_as(client, read))


def stats_read(wire: Wire) -> PeriodStats | None:
    """The totals of DAY."""

    async def read(reader: WorkspaceReader) -> PeriodStats:
        return await reader.stats(DAY, DAY)

    return _told(_always(wire), lambda client: _read_as(client, read))


def team_read(wire: Wire) -> int | None:
    """The workspace that the client takes the key for one of."""

    async def read(client: BisonClient) -> int:
        try:
            await client.check_key(_ELSEWHERE, WORKSPACE_KEY)
        except WrongWorkspace as wrong:
            return int(re.findall(r"belongs to workspace (\d+)", wrong.what)[0])
        return _ELSEWHERE.bison_workspace_id

    return _told(_always(wire), read)


def list_read(page: Callable[[int], Wire]) -> list[int] | None:
    """The ids of the workspaces, in order, from an instance with these pages.

    A walk over more than MOST_PAGES is a failure of the test.
    """
    asked: list[int] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        asked.append(int(request.url.params["page"]))
        assert len(asked) <= MOST_PAGES, "the walk does not end"
        return page(asked[-1]).response()

    async def read(client: BisonClient) -> list[int]:
        return sorted(workspace.id for workspace in await client.list_workspaces())

    return _told(answer, read)


def _always(wire: Wire) -> Handler:
    async def answer(request: httpx.Request) -> httpx.Response:
        return wire.response()

    return answer


async def _read_as(client: BisonClient, read: Callable[[WorkspaceReader], Awaitable[T]]) -> T:
    return (await client.read_as(HARBOR, WORKSPACE_KEY, read)).value


def _told(handler: Handler, read: Callable[[BisonClient], Awaitable[T]]) -> T | None:
    # Only the client's own errors count as rejections; any other fails the test.
    async def work() -> T:
        async with client_for(handler, options=ClientOptions(attempts=1)) as client:
            return await read(client)

    try:
        return run(work())
    except BisonError:
        return None
