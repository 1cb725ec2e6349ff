"""One client's facts, fetched from Email Bison: one call, whatever the number of days."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime

from kpi_pipeline.bison import BisonClient, WorkspaceReader, WorkspaceRef
from kpi_pipeline.business_days import business_date, fetch_period
from kpi_pipeline.deployment import Deployment
from kpi_pipeline.warehouse.clients import Client, StoredKey, mark_key
from kpi_pipeline.warehouse.facts import SendingPlan


@dataclass(frozen=True)
class FetchedFacts:
    """What Email Bison told of one client: daily counts, and today's plan where today was asked."""

    as_of: datetime
    days: Mapping[date, Mapping[str, int]]
    plan: SendingPlan | None


def reference(client: Client) -> WorkspaceRef:
    """The client as the room `bison` knows it."""
    return WorkspaceRef(client.workspace, client.instance, client.bison_workspace_id)


async def fetch_facts(
    deployment: Deployment,
    bison: BisonClient,
    client: Client,
    key: StoredKey | None,
    dates: Sequence[date],
) -> FetchedFacts:
    """Fetch all the facts that the numbers of `dates` are worked out from.

    A key whose workspace was never compared with the registry is compared first.

    Raises:
        BisonError: if the call failed for good, or answered something that can't be believed.
    """
    today = deployment.today()
    first, last = fetch_period(min(dates), max(dates))
    if key is not None and key.verified_at is None:
        await bison.check_key(reference(client), key.secret)
        with deployment.engine.begin() as connection:
            mark_key(connection, client.workspace, deployment.now())

    async def read(reader: WorkspaceReader) -> FetchedFacts:
        series = await reader.daily_series(first, last)
        plan = None
        if today in dates:
            plan = SendingPlan(
                date=today,
                today=await reader.sending_plan("today"),
                tomorrow=await reader.sending_plan("tomorrow"),
                as_of=series.as_of,
            )
            if business_date(deployment.now(), deployment.timezone) != today:
                # Midnight passed meanwhile: whose "today" the plan tells of can't be known.
                plan = None
        days = {day: asdict(counts) for day, counts in series.days.items()}
        return FetchedFacts(series.as_of, days, plan)

    reading = await bison.read_as(reference(client), key.secret if key else None, read)
    return reading.value
