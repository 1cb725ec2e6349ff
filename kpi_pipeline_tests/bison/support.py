"""Hand-written fakes of what the client talks to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

import httpx
from pydantic import SecretStr

from kpi_pipeline.bison import BisonClient, BisonInstance, ClientOptions, Pacing, WorkspaceRef

T = TypeVar("T")
Handler = Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]

SERIES = "/api/workspaces/v1.1/line-area-chart-stats"
STATS = "/api/workspaces/v1.1/stats"
SWITCH = "/api/workspaces/v1.1/switch-workspace"
LIST = "/api/workspaces/v1.1"
USERS = "/api/users"
PLAN = "/api/campaigns/sending-schedules"

LABELS = (
    "Replied",
    "Total Opens",
    "Sent",
    "Unsubscribed",
    "Bounced",
    "Interested",
    "Unique Opens",
)
MASTER_KEY = SecretStr("1|" + "Mm3" * 16)
WORKSPACE_KEY = SecretStr("7|" + "Ww5" * 16)
HARBOR = WorkspaceRef(workspace="blue-harbor", instance="main", bison_workspace_id=7)
ORCHARD = WorkspaceRef(workspace="old-orchard", instance="main", bison_workspace_id=9)
DAY = date(2026, 3, 4)
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def answer(data: object, status: int = 200, **more: object) -> httpx.Response:
    return httpx.Response(status, json={"data": data, **more})


def error_answer(status: int, message: str, **headers: str) -> httpx.Response:
    body = {"data": {"success": False, "message": message}}
    return httpx.Response(status, json=body, headers=headers)


def whoami(team: int) -> httpx.Response:
    return answer({"id": 3, "name": "Agency", "team": {"id": team, "name": f"Team {team}"}})


def series(
    first: date, last: date, numbers: Mapping[str, int] | None = None
) -> list[dict[str, Any]]:
    """The vendor's seven lines; each label has one number, the same on every day."""
    numbers = numbers or {label: n for n, label in enumerate(LABELS, start=10)}
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    return [
        {
            "label": label,
            "color": "#123456",
            "dates": [[day.isoformat(), numbers[label]] for day in days],
        }
        for label in LABELS
    ]


def series_for(request: httpx.Request, sent: int = 12) -> httpx.Response:
    first, last = (
        date.fromisoformat(request.url.params[name]) for name in ("start_date", "end_date")
    )
    return answer(series(first, last, dict.fromkeys(LABELS, 1) | {"Sent": sent}))


class Script:
    """Answers requests with the given answers or errors in order; the last one stays."""

    def __init__(self, *steps: httpx.Response | Exception) -> None:
        self._steps = list(steps)
        self.requests: list[httpx.Request] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        if isinstance(step, Exception):
            raise step
        return httpx.Response(step.status_code, headers=step.headers, content=step.content)


class RecordingPacing(Pacing):
    def __init__(self) -> None:
        self.slots = 0
        self.under_way = 0
        self.pushes: list[float] = []

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        self.slots += 1
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1

    async def push_back(self, seconds: float) -> None:
        self.pushes.append(seconds)


class LocalLock:
    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self.holders: list[str] = []

    @asynccontextmanager
    async def held(self, instance: str) -> AsyncIterator[None]:
        async with self._locks.setdefault(instance, asyncio.Lock()):
            self.holders.append(instance)
            yield


def client_for(
    handler: Handler,
    *,
    master_key: SecretStr | None = MASTER_KEY,
    pacing: Pacing | None = None,
    lock: LocalLock | None = None,
    options: ClientOptions | None = None,
    now: Callable[[], datetime] = lambda: NOON,
    sleep: Callable[[float], Awaitable[None]] | None = None,
) -> BisonClient:
    return BisonClient(
        BisonInstance("main", "https://bison.example", master_key),
        pacing=pacing or RecordingPacing(),
        master_lock=lock or LocalLock(),
        options=options or ClientOptions(),
        transport=httpx.MockTransport(handler),
        now=now,
        sleep=sleep or no_sleep,
    )


async def no_sleep(seconds: float) -> None:
    await asyncio.sleep(0)
