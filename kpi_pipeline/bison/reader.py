"""The calls that read one workspace's numbers."""

import asyncio
from collections.abc import Callable
from datetime import date, timedelta
from typing import Literal, TypeVar

from kpi_pipeline.bison.answers import LARGEST_COUNT, AnswerError, period_stats
from kpi_pipeline.bison.calls import Access, Answered, Call, Caller, malformed
from kpi_pipeline.bison.errors import BisonError, MalformedAnswer
from kpi_pipeline.bison.model import DailySeries, DayCounts, PeriodStats, Webhook
from kpi_pipeline.bison.pages import EntryT, Listed, ListedPlans, ListedWebhooks, every_row
from kpi_pipeline.bison.series import SeriesDays, days_of

T = TypeVar("T")


class Session:
    """Calls with one API key, one after another: a master key never has two at once."""

    def __init__(self, caller: Caller, access: Access) -> None:
        self._caller = caller
        self._access = access
        self._one_at_a_time = asyncio.Lock()

    async def call(self, call: Call, decode: Callable[[object], T]) -> Answered[T]:
        """As `Caller.call`."""
        async with self._one_at_a_time:
            return await self._caller.call(call, self._access, decode)

    async def rows(
        self,
        listing: Call,
        shape: type[Listed[EntryT]],
        *,
        is_empty: Callable[[BisonError], bool] = lambda _: False,
    ) -> list[EntryT]:
        """Every entry of a list, over all its pages.

        Raises:
            MalformedAnswer: if the pages make no whole list; see `every_row`.
            BisonError: if a call fails; but the list has no entries if that is what `is_empty` says
                of the error.
        """
        try:
            return [row async for row in every_row(self.call, listing, shape, is_empty=is_empty)]
        except AnswerError as problem:
            raise self.malformed(listing, problem) from None

    def malformed(self, call: Call, problem: AnswerError) -> MalformedAnswer:
        """The error for answers that were decoded, and can't be believed all the same."""
        return malformed(self._access, call, problem)


class WorkspaceReader:
    """Reads one workspace."""

    def __init__(self, session: Session, series_max_days: int) -> None:
        self._session = session
        self._series_max_days = series_max_days

    @property
    def session(self) -> Session:
        """The calls with the key of this workspace, for what changes something there."""
        return self._session

    async def daily_series(self, first: date, last: date) -> DailySeries:
        """The counts of every day from `first` to `last`, both included.

        It takes one call for each `series_max_days` days.

        Raises:
            BisonError: if a call fails or an answer can't be believed; then nothing is returned.
            ValueError: if `last` lies before `first`.
        """
        if last < first:
            raise ValueError(f"the period {first} to {last} ends before it starts")
        days: dict[date, DayCounts] = {}
        sent_at = []
        unlisted = []
        start = first
        while start <= last:
            end = min(last, start + timedelta(days=self._series_max_days - 1))
            part = await self._part_of_series(start, end)
            sent_at.append(part.sent_at)
            days |= part.value.days
            if not part.value.lists_days:
                unlisted.append((start, end))
            start = end + timedelta(days=1)
        return DailySeries(min(sent_at), days, unlisted)

    async def sending_plan(self, day: Literal["today", "tomorrow"]) -> int:
        """Emails that the workspace's campaigns plan to send on that day, in Bison's time zone.

        Raises:
            BisonError: if a call fails, the pages make no whole list, or an answer can't be
                believed.
        """
        # The vendor's document puts `day` into a JSON body of the GET, which proxies may drop; as a
        # query parameter it was observed live to work.
        listing = Call("GET", "/api/campaigns/sending-schedules", params={"day": day})
        plans = await self._session.rows(listing, ListedPlans, is_empty=_says_nothing_planned)
        emails = sum(plan.emails_being_sent for plan in plans)
        if emails > LARGEST_COUNT:
            problem = AnswerError(f"answered with {emails} emails, which is beyond all measure")
            raise self._session.malformed(listing, problem)
        return emails

    async def stats(self, first: date, last: date) -> PeriodStats:
        """Email Bison's own totals from `first` to `last`, both included.

        Raises:
            BisonError: if the call fails or its answer can't be believed.
        """
        call = Call("GET", "/api/workspaces/v1.1/stats", params=_period(first, last))
        return (await self._session.call(call, period_stats)).value

    async def webhooks(self) -> list[Webhook]:
        """The webhooks of the workspace.

        Raises:
            BisonError: if a call fails, or the pages make no whole list.
        """
        rows = await self._session.rows(Call("GET", "/api/webhook-url"), ListedWebhooks)
        return [row.webhook() for row in rows]

    async def _part_of_series(self, first: date, last: date) -> Answered[SeriesDays]:
        call = Call("GET", "/api/workspaces/v1.1/line-area-chart-stats", _period(first, last))
        return await self._session.call(call, lambda body: days_of(body, first, last))


def _says_nothing_planned(error: BisonError) -> bool:
    """Whether an error only says that nothing is planned.

    Observed live: without a plan, some instances answer 400 with these words, others an empty list.
    The other two statuses, and a failure with status 200, are what a later version may answer.
    """
    words = "no emails scheduled" in error.message.lower()
    return words and (isinstance(error, MalformedAnswer) or error.status in (400, 404, 422))


def _period(first: date, last: date) -> dict[str, str | int]:
    return {"start_date": first.isoformat(), "end_date": last.isoformat()}
