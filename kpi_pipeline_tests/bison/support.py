"""A client without network or pauses, and fakes of what it talks to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
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

_LABELS = "Replied, Total Opens, Sent, Unsubscribed, Bounced, Interested, Unique Opens"
LABELS = tuple(_LABELS.split(", "))
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


def line(label: str, points: Iterable[tuple[date, int | str]]) -> dict[str, Any]:
    """A line of a series, as the vendor draws it."""
    dates = [[day.isoformat(), count] for day, count in points]
    return {"label": label, "color": "#123456", "dates": dates}


def series(
    first: date, last: date, counts: Mapping[str, int] | None = None
) -> list[dict[str, Any]]:
    """The vendor's seven lines; each label has one count, the same on every day."""
    counts = counts or {label: n for n, label in enumerate(LABELS, start=10)}
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    return [line(label, ((day, counts[label]) for day in days)) for label in LABELS]


def series_for(request: httpx.Request, sent: int = 12) -> httpx.Response:
    """The series that a request asks for: on each day so many emails, and one of all else."""
    period = request.url.params
    first, last = map(date.fromisoformat, (period["start_date"], period["end_date"]))
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


def through_master_key(team: int) -> Script:
    """The calls of a reading with the master key: a switch, a check, the series, and a check."""
    return Script(answer({"name": "Team"}), whoami(team), answer(series(DAY, DAY)), whoami(team))


class RecordingPacing(Pacing):
    def __init__(self) -> None:
        self.slots = 0
        self.ahead = 0
        self.pushes: list[float] = []

    @asynccontextmanager
    async def slot(self, *, ahead: bool = False) -> AsyncIterator[None]:
        self.slots += 1
        self.ahead += ahead
        yield

    async def push_back(self, seconds: float) -> None:
        self.pushes.append(seconds)


class LocalLock:
    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self.holders: list[str] = []

    @asynccontextmanager
    async def held(self, instance: str) -> AsyncIterator[None]:
        async with self._lock:
            self.holders.append(instance)
            yield


async def no_sleep(seconds: float) -> None:
    await asyncio.sleep(0)


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
