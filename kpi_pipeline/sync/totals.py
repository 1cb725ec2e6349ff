"""Email Bison's own totals of a period, asked for client by client; outside any sync."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import date

from kpi_pipeline.app import AppContext
from kpi_pipeline.bison import BisonClient, BisonError, PeriodStats, Unavailable, WorkspaceReader
from kpi_pipeline.db.clients import Client, active_clients
from kpi_pipeline.errors import KpiError
from kpi_pipeline.sync.identity import read_client
from kpi_pipeline.sync.run import side_by_side


@dataclass
class Totals:
    """What Email Bison told, by client; and a sentence for each client that could not be asked for,
    or of whom it did not answer.
    """

    told: dict[str, PeriodStats] = field(default_factory=dict)
    unasked: dict[str, str] = field(default_factory=dict)
    unanswered: dict[str, str] = field(default_factory=dict)


async def ask_for_totals(app: AppContext, first: date, last: date) -> Totals:
    """Ask for the totals of `first` … `last` of each active client, one call for each."""
    totals = Totals()
    with app.engine.connect() as connection:
        clients = active_clients(connection)
    async with AsyncExitStack() as stack:
        opened: dict[str, BisonClient] = {}
        for name, instance in app.instances().items():
            opened[name] = await stack.enter_async_context(app.bison_client(instance))

        async def ask(client: Client) -> None:
            try:
                totals.told[client.workspace] = await _ask(app, opened, client, first, last)
            except Unavailable as error:
                totals.unanswered[client.workspace] = str(error)
            except (BisonError, KpiError) as error:
                totals.unasked[client.workspace] = str(error)

        await side_by_side(clients, ask, app.settings.bison_concurrency)
    return totals


async def _ask(
    app: AppContext,
    opened: Mapping[str, BisonClient],
    client: Client,
    first: date,
    last: date,
) -> PeriodStats:
    # Refuses an instance that is not configured, with the remedy.
    bison = opened[app.instance(client.instance).name]

    async def read(reader: WorkspaceReader) -> PeriodStats:
        return await reader.stats(first, last)

    return await read_client(app, bison, client, read)
