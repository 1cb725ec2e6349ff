"""Fetches Email Bison's own totals of a period for each client, for the check of totals."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import date

from kpi_pipeline.app import AppContext
from kpi_pipeline.bison import BisonClient, BisonError, PeriodStats, Unavailable, WorkspaceReader
from kpi_pipeline.db.registry.clients import Client, active_clients
from kpi_pipeline.errors import KpiError
from kpi_pipeline.sync.identity import read_client
from kpi_pipeline.sync.run import for_each_client


@dataclass
class Totals:
    """Totals by workspace; and a sentence for each workspace whose call was not possible or invalid
    (`unasked`), or stayed without an answer (`unanswered`).
    """

    stats: dict[str, PeriodStats] = field(default_factory=dict)
    unasked: dict[str, str] = field(default_factory=dict)
    unanswered: dict[str, str] = field(default_factory=dict)


async def ask_for_totals(app: AppContext, first: date, last: date) -> Totals:
    """Fetch the totals of `first` … `last` of each active client, with one call per client."""
    totals = Totals()
    with app.engine.connect() as connection:
        clients = active_clients(connection)
    async with AsyncExitStack() as stack:
        opened: dict[str, BisonClient] = {}
        for name, instance in app.instances().items():
            opened[name] = await stack.enter_async_context(app.bison_client(instance))

        async def ask(client: Client) -> None:
            try:
                totals.stats[client.workspace] = await _ask(app, opened, client, first, last)
            except Unavailable as error:
                totals.unanswered[client.workspace] = str(error)
            except (BisonError, KpiError) as error:
                totals.unasked[client.workspace] = str(error)

        await for_each_client(clients, ask, app.settings.bison_concurrency)
    return totals


async def _ask(
    app: AppContext,
    opened: Mapping[str, BisonClient],
    client: Client,
    first: date,
    last: date,
) -> PeriodStats:
    # Raises, with the remedy, if the instance is not configured.
    bison = opened[app.instance(client.instance).name]

    async def read(reader: WorkspaceReader) -> PeriodStats:
        return await reader.stats(first, last)

    return await read_client(app, bison, client, read)
