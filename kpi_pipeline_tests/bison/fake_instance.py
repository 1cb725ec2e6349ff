"""An Email Bison whose master key acts in whichever workspace it was last switched to."""

import asyncio
import json
from collections.abc import Callable

import httpx

from kpi_pipeline_tests.bison.support import (
    LIST,
    MASTER_KEY,
    PLAN,
    SERIES,
    SWITCH,
    USERS,
    WORKSPACE_KEY,
    answer,
    error_answer,
    series_for,
    whoami,
)


class FakeInstance:
    """Workspace N sends N × 1,000 emails a day.

    `polls_until_switched` is how many calls for `/api/users` still show the workspace before;
    `after_series` runs after each answered series, as somebody in Email Bison's pages might.
    """

    def __init__(
        self,
        polls_until_switched: int = 0,
        after_series: Callable[["FakeInstance"], None] = lambda _: None,
    ) -> None:
        self.master_team = 1
        self.workspace_key_team = 7
        self.log: list[tuple[str, int]] = []
        self.master_calls_under_way = 0
        self.most_master_calls_at_once = 0
        self._polls_until_switched = polls_until_switched
        self._after_series = after_series
        self._pending: tuple[int, int] | None = None

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        if token == WORKSPACE_KEY.get_secret_value():
            return await self._answer(request, self.workspace_key_team, master=False)
        if token != MASTER_KEY.get_secret_value():
            return error_answer(401, "Unauthenticated.")
        self.master_calls_under_way += 1
        self.most_master_calls_at_once = max(
            self.most_master_calls_at_once, self.master_calls_under_way
        )
        try:
            return await self._answer(request, self.master_team, master=True)
        finally:
            self.master_calls_under_way -= 1

    async def _answer(self, request: httpx.Request, team: int, master: bool) -> httpx.Response:
        await asyncio.sleep(0)
        path = request.url.path
        if master and path == USERS:
            self._poll()
        if master:
            team = self.master_team
        self.log.append((f"{request.method} {path}", team))
        if path == SWITCH and master:
            wanted = json.loads(request.content)["team_id"]
            self._pending = (wanted, self._polls_until_switched)
            if not self._polls_until_switched:
                self._poll()
            return answer({"name": f"Team {wanted}"})
        if path == USERS:
            return whoami(team)
        if path == SERIES:
            reply = series_for(request, sent=team * 1000)
            self._after_series(self)
            return reply
        if path == PLAN:
            return answer([{"emails_being_sent": team}])
        if path == LIST and master:
            return answer([{"id": 7, "name": "Blue Harbor"}])
        return error_answer(404, "record_not_found")

    def _poll(self) -> None:
        if self._pending is None:
            return
        wanted, polls = self._pending
        if polls == 0:
            self.master_team, self._pending = wanted, None
        else:
            self._pending = (wanted, polls - 1)
