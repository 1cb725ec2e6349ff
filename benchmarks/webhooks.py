"""From a webhook's arrival to the number in client_metrics, while syncs run on the same machine."""

import asyncio
import json
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
from rich.table import Table
from sqlalchemy import text

from benchmarks.installation import installation, run_ended
from kpi_pipeline.db.registry.clients import active_clients
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.services.dagster_home import child_environment
from kpi_pipeline.services.playground import Playground
from kpi_pipeline.sync.scope import KpiAsset
from kpi_pipeline_tests.gateway.support import GatewayProcess, gateway_processes

_SANDBOX = {"clients": 26, "calls-per-second": 9.5, "latency": 0.25}
_A_SECOND, _STEADY_SECONDS = 20, 30
_BURST = 2_000
_BURST_AT_ONCE = 50


def webhooks() -> Table:
    """20 events a second, then 2,000 at once; the sender takes the time."""
    table = Table(
        title="Webhooks of 26 clients, from POST to the number in client_metrics, syncs at work",
        title_justify="left",
    )
    for heading in ("Load", "Events", "p50", "p95", "longest", "In all", "Counted", "Syncs"):
        table.add_column(heading, justify="right")
    with installation(_SANDBOX) as play, tempfile.TemporaryDirectory() as folder:
        os.environ |= child_environment(play.app.settings)
        _fill(play)
        with gateway_processes(Path(folder), 1) as [gateway]:
            for load, send in (
                (f"{_A_SECOND} a second", _steadily),
                (f"{_BURST:,} at once", _at_once),
            ):
                before = _total(play)
                bodies = _bodies(play, _A_SECOND * _STEADY_SECONDS if send is _steadily else _BURST)
                with _syncs(play) as syncs:
                    started = time.monotonic()
                    seconds = sorted(asyncio.run(send(play, gateway, bodies)))
                    in_all = time.monotonic() - started
                _fill(play)
                table.add_row(
                    load,
                    f"{len(bodies):,}",
                    f"{1e3 * statistics.median(seconds):.0f} ms",
                    f"{1e3 * seconds[int(0.95 * len(seconds))]:.0f} ms",
                    f"{1e3 * seconds[-1]:.0f} ms",
                    f"{in_all:.1f} s",
                    f"{_total(play) - before:,}",
                    str(len(syncs)),
                )
    table.caption = "asked for: p50 ≤ 20 ms and p95 ≤ 40 ms; the 2,000 in ≤ 30 s, none lost"
    return table


def _bodies(play: Playground, count: int) -> list[bytes]:
    """What tells of as many leads, which Email Bison counts, too; in any order."""
    with play.app.engine.connect() as connection:
        ids = [client.bison_workspace_id for client in active_clients(connection)]
    bodies = []
    for place, workspace_id in enumerate(ids):
        leads = len(range(place, count, len(ids)))
        marking = {"workspace_id": workspace_id, "leads": leads, "deliver": False}
        answer = httpx.post(f"{play.sandbox}/sandbox/mark-interested", json=marking)
        bodies += [
            json.dumps(event).encode() for event in answer.raise_for_status().json()["events"]
        ]
    random.shuffle(bodies)
    return bodies


async def _steadily(
    play: Playground, gateway: GatewayProcess, bodies: Sequence[bytes]
) -> list[float]:
    """Send so many a second, whether or not the ones before are answered."""
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        started = time.monotonic()
        sent = []
        for place, body in enumerate(bodies):
            await asyncio.sleep(max(0.0, started + place / _A_SECOND - time.monotonic()))
            sent.append(asyncio.create_task(_seconds(play, client, gateway.url, body)))
        return list(await asyncio.gather(*sent))


async def _at_once(
    play: Playground, gateway: GatewayProcess, bodies: Sequence[bytes]
) -> list[float]:
    """Send all of them as fast as the gateway takes them, 50 side by side."""
    places = asyncio.Semaphore(_BURST_AT_ONCE)
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:

        async def one(body: bytes) -> float:
            async with places:
                return await _seconds(play, client, gateway.url, body)

        return list(await asyncio.gather(*map(one, bodies)))


async def _seconds(play: Playground, client: httpx.AsyncClient, url: str, body: bytes) -> float:
    """From the sending to the event's being applied: mostly before the answer.

    An event of a client that a sync is busy with is applied a moment after the answer.
    """
    started = time.monotonic()
    answer = await client.post(url, content=body)
    answer.raise_for_status()
    stored = answer.json()
    while stored["status"] == "received":
        await asyncio.sleep(0.005)
        stored["status"] = await asyncio.to_thread(_status, play, stored["id"])
    assert stored["status"] == "applied", answer.text
    return time.monotonic() - started


def _status(play: Playground, event_id: int) -> str:
    statement = text("SELECT status FROM webhook_events WHERE id = :id")
    with play.app.engine.connect() as connection:
        return str(connection.scalar(statement, {"id": event_id}))


def _fill(play: Playground) -> None:
    run_ended(play, _launch(play))


def _launch(play: Playground) -> str:
    today = play.app.today()
    tags = block_tags(play.grid, days_between(today - timedelta(days=1), today))
    return play.page.launch([step.value for step in KpiAsset], tags)


@contextmanager
def _syncs(play: Playground) -> Iterator[list[str]]:
    """Refreshes of all clients, one after the other, while the block lasts."""
    over = threading.Event()
    launched: list[str] = []

    def work() -> None:
        while not over.is_set():
            launched.append(_launch(play))
            run_ended(play, launched[-1])

    thread = threading.Thread(target=work)
    thread.start()
    try:
        # The first is at work when the load begins.
        while not launched or not _at_work(play):
            time.sleep(0.1)
        yield launched
    finally:
        over.set()
        thread.join()


def _at_work(play: Playground) -> bool:
    return bool(httpx.get(f"{play.sandbox}/sandbox/calls").json()["total"])


def _total(play: Playground) -> int:
    """All clients' positive replies of today."""
    statement = text(
        "SELECT sum(positive_replies_today) FROM client_metrics WHERE metric_date = :today"
    )
    with play.app.engine.connect() as connection:
        return int(connection.scalar(statement, {"today": play.app.today()}) or 0)
