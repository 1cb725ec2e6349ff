"""Clients side by side, and one after the other those that wait for each other anyway."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from kpi_pipeline.warehouse.clients import Client

T = TypeVar("T")


async def side_by_side(
    clients: Sequence[Client],
    work: Callable[[Client], Awaitable[T]],
    at_once: int,
    *,
    by_master_key: bool = True,
) -> list[T]:
    """Do `work` for all clients, `at_once` of them at a time; in no particular order.

    Clients without a key of their own wait for their instance's master key, and take no slot while
    they do; not so when the work makes no calls (`by_master_key` is false).
    """
    slots = asyncio.Semaphore(at_once)
    lanes: dict[str, list[Client]] = {}
    for client in clients:
        if by_master_key and not client.has_key:
            lanes.setdefault(client.instance, []).append(client)

    async def one_after_another(lane: Sequence[Client]) -> list[T]:
        return [await work(client) for client in lane]

    async def in_a_slot(client: Client) -> list[T]:
        async with slots:
            return [await work(client)]

    keyed = [client for client in clients if client not in lanes.get(client.instance, [])]
    parts = await asyncio.gather(*map(one_after_another, lanes.values()), *map(in_a_slot, keyed))
    return [it for part in parts for it in part]
