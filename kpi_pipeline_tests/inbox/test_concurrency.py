"""Many threads ingest events at once: none waits for ever, and every number is exact."""

import random
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.inbox import ingest
from kpi_pipeline_tests.db.stocked import TODAY, imported, record
from kpi_pipeline_tests.domain.bodies import lead
from kpi_pipeline_tests.inbox.support import LATER, Clients

THREADS, EVENTS, CLIENTS = 8, 40, 6


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, no thread gives up waiting for a client's lock."""
    monkeypatch.setattr(ingest, "_WAIT_SECONDS", 60.0)


def test_eight_threads_with_mixed_batches_never_block_each_other_and_lose_nothing(
    engine: Engine, vault: Vault
) -> None:
    ids = [100 + number for number in range(CLIENTS)]
    keys = imported(engine, vault, *(record(it, f"Client {it}") for it in ids))
    clients = Clients(engine, vault)
    for key in keys:
        clients.stock(key, shown=[TODAY])
    # A fifth of the leads is sent by more than one thread.
    chance = random.Random(4711)
    sent = [
        [(chance.choice(ids), chance.randint(1, EVENTS * 5)) for _ in range(EVENTS)]
        for _ in range(THREADS)
    ]

    def send(leads: list[tuple[int, int]]) -> None:
        while leads:
            size = 1 + len(leads) % 7
            clients.ingest(*(lead(number, client, LATER) for client, number in leads[:size]))
            del leads[:size]

    distinct = {it for leads in sent for it in leads}
    total = sum(map(len, sent))
    with ThreadPoolExecutor(THREADS) as pool:
        for future in [pool.submit(send, list(leads)) for leads in sent]:
            future.result(timeout=60)

    leads_of = Counter(client for client, _ in distinct)
    assert {key: clients.number("positive_replies_mtd", key) for key in keys} == {
        key: 3 * 18 + leads_of[number] for key, number in zip(keys, ids, strict=True)
    }
    assert len(distinct) < total
    assert clients.sql("SELECT count(*), sum(deliveries) FROM webhook_events") == [
        (len(distinct), total)
    ]
    assert set(clients.events("status")) == {"applied"}


def test_a_sync_of_the_same_client_at_the_same_time_loses_no_event(
    engine: Engine, vault: Vault
) -> None:
    imported(engine, vault, record(101, "Harbor"))
    clients = Clients(engine, vault)
    clients.stock(shown=[TODAY])
    with ThreadPoolExecutor(4) as pool:
        futures: list[Future[object]] = []
        for number in range(1, 16):
            futures.append(pool.submit(clients.ingest, lead(number, 101, LATER)))
            futures.append(pool.submit(clients.stock, shown=[TODAY]))
        for future in futures:
            future.result(timeout=60)
    assert clients.number("positive_replies_mtd") == 3 * 18 + 15
    assert set(clients.events("status")) == {"applied"}
