"""A client without network or pauses, and fakes of what it talks to."""

import asyncio
import json
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


class RecordingPacing(Pacing):
    def __init__(self) -> None:
        self.slots = 0
        self.pushes: list[float] = []

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        self.slots += 1
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
