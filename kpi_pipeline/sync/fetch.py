"""One client's facts, fetched from Email Bison: one call, whatever the number of days."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime

from kpi_pipeline.app import AppContext
from kpi_pipeline.bison import BisonClient, WorkspaceReader
from kpi_pipeline.db.clients import Client
from kpi_pipeline.db.facts import SendingPlan
from kpi_pipeline.domain.calendar import fetch_period
from kpi_pipeline.sync.identity import read_client
from kpi_pipeline.sync.scope import BackfillScope


@dataclass(frozen=True)
class FetchedFacts:
    """What Email Bison told of one client: daily counts, and today's plan where today was asked."""

    as_of: datetime
    days: Mapping[date, Mapping[str, int]]
    plan: SendingPlan | None


def period_of(dates: Sequence[date], whole: BackfillScope | None) -> tuple[date, date]:
    """The first and last day that are fetched for `dates`, or for all of `whole`."""
    if whole is None:
        return fetch_period(min(dates), max(dates))
    return fetch_period(whole.first, whole.last)


async def fetch_facts(
    app: AppContext,
    bison: BisonClient,
    client: Client,
    dates: Sequence[date],
    whole: BackfillScope | None = None,
) -> FetchedFacts:
    """Fetch all the facts that the numbers of `dates` are worked out from, or those of `whole`.

    Raises:
        KpiError: if the client's key can't be decrypted.
        BisonError: if the call failed for good, or answered something that can't be believed.
    """
    today = app.today()
    first, last = period_of(dates, whole)

    async def read(reader: WorkspaceReader) -> FetchedFacts:
        series = await reader.daily_series(first, last)
        plan = None
        # Plans know no date but today, so it must be the same day there.
        if today in dates and app.bison_agrees_on(today):
            plan = SendingPlan(
                date=today,
                today=await reader.sending_plan("today"),
                tomorrow=await reader.sending_plan("tomorrow"),
                as_of=series.as_of,
            )
            if app.today() != today or not app.bison_agrees_on(today):
                # Midnight passed meanwhile: whose "today" the plan tells of can't be known.
                plan = None
        days = {day: asdict(counts) for day, counts in series.days.items()}
        return FetchedFacts(series.as_of, days, plan)

    return await read_client(app, bison, client, read)
