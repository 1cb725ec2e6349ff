"""The calls that read one workspace's numbers."""

import asyncio
from collections.abc import Callable
from datetime import date, timedelta
from typing import Literal, TypeVar

from kpi_pipeline.bison.answers import period_stats, planned_emails
from kpi_pipeline.bison.calls import Access, Answered, Call, Caller
from kpi_pipeline.bison.errors import RefusedRequest
from kpi_pipeline.bison.model import DailySeries, DayCounts, PeriodStats
from kpi_pipeline.bison.series import days_of

T = TypeVar("T")


class WorkspaceReader:
    """Reads one workspace, one call after another: a master key never has two under way."""

    def __init__(self, caller: Caller, access: Access, series_max_days: int) -> None:
        self._caller = caller
        self._access = access
        self._series_max_days = series_max_days
        self._one_at_a_time = asyncio.Lock()

    async def daily_series(self, first: date, last: date) -> DailySeries:
        """The counts of every day from `first` to `last`, both included.

        One call for each `series_max_days` days.

        Raises:
            BisonError: if a call fails or an answer can't be believed; then nothing is returned.
            ValueError: if `last` lies before `first`.
        """
        if last < first:
            raise ValueError(f"the period {first} to {last} ends before it starts")
        days: dict[date, DayCounts] = {}
        sent_at = []
        start = first
        while start <= last:
            end = min(last, start + timedelta(days=self._series_max_days - 1))
            part = await self._part_of_series(start, end)
            sent_at.append(part.sent_at)
            days |= part.value
            start = end + timedelta(days=1)
        return DailySeries(as_of=min(sent_at), days=days)

    async def sending_plan(self, day: Literal["today", "tomorrow"]) -> int:
        """Emails that the workspace's campaigns plan to send on that day of Email Bison's.

        Raises:
            BisonError: if the call fails or its answer can't be believed.
        """
        # The vendor's document puts `day` into a JSON body of the GET, which proxies may drop; as a
        # query parameter it was observed live to work.
        call = Call("GET", "/api/campaigns/sending-schedules", params={"day": day})
        try:
            return (await self._call(call, planned_emails)).value
        except RefusedRequest as refusal:
            # Observed live: nothing planned is told with an error, by some with an empty list.
            if refusal.status == 400 and "no emails scheduled" in refusal.message.lower():
                return 0
            raise

    async def stats(self, first: date, last: date) -> PeriodStats:
        """Email Bison's own totals from `first` to `last`, both included.

        Raises:
            BisonError: if the call fails or its answer can't be believed.
        """
        call = Call("GET", "/api/workspaces/v1.1/stats", params=_period(first, last))
        return (await self._call(call, period_stats)).value

    async def _part_of_series(self, first: date, last: date) -> Answered[dict[date, DayCounts]]:
        call = Call("GET", "/api/workspaces/v1.1/line-area-chart-stats", _period(first, last))
        return await self._call(call, lambda body: days_of(body, first, last))

    async def _call(self, call: Call, decode: Callable[[object], T]) -> Answered[T]:
        async with self._one_at_a_time:
            return await self._caller.call(call, self._access, decode)


def _period(first: date, last: date) -> dict[str, str | int]:
    return {"start_date": first.isoformat(), "end_date": last.isoformat()}
