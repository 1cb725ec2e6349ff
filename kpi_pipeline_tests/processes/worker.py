"""A process of the pipeline that opens its installation as production does, and only reads.

Its argument is a task. It prints READY when it has opened everything, waits for a line of its
input, and then prints the outcome of each reading as soon as that has ended.
"""

import asyncio
import random
import sys
from dataclasses import asdict

from kpi_pipeline.app import AppContext, open_app
from kpi_pipeline.bison import BisonClient, BisonError, DailySeries, WorkspaceReader
from kpi_pipeline.db.api_keys import stored_keys
from kpi_pipeline.db.clients import all_clients
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import load_settings
from kpi_pipeline.sync.identity import workspace_ref
from kpi_pipeline_tests.processes.tasks import Outcome, Reading, Task

READY = "ready"


def main() -> None:
    task = Task.model_validate_json(sys.argv[1])
    with open_app(load_settings()) as app:
        print(READY, flush=True)
        sys.stdin.readline()
        asyncio.run(_work(app, task))


async def _work(app: AppContext, task: Task) -> None:
    (instance,) = app.instances().values()
    slots = asyncio.Semaphore(task.at_once)
    async with app.bison_client(instance) as bison:

        async def work(reading: Reading) -> None:
            async with slots:
                print((await _outcome(app, bison, reading)).model_dump_json(), flush=True)
                await asyncio.sleep(random.uniform(0, task.longest_pause))

        await asyncio.gather(*(work(reading) for reading in task.readings))


async def _outcome(app: AppContext, bison: BisonClient, reading: Reading) -> Outcome:
    started_at = utc_now()
    days, trouble, error = None, None, None
    try:
        series = await _read(app, bison, reading)
        days = {day: asdict(counts) for day, counts in series.days.items()}
    except (BisonError, KpiError) as failure:
        trouble, error = type(failure).__name__, str(failure)
    return Outcome(
        reading=reading,
        started_at=started_at,
        ended_at=utc_now(),
        days=days,
        trouble=trouble,
        error=error,
    )


async def _read(app: AppContext, bison: BisonClient, reading: Reading) -> DailySeries:
    with app.engine.connect() as connection:
        clients = {client.workspace: client for client in all_clients(connection)}
        keys = stored_keys(connection, [reading.workspace], app.vault)
    key = keys.get(reading.workspace)

    async def series(reader: WorkspaceReader) -> DailySeries:
        return await reader.daily_series(reading.first, reading.last)

    ref = workspace_ref(clients[reading.workspace])
    return (await bison.read_as(ref, key.secret if key else None, series)).value


if __name__ == "__main__":
    main()
