"""Events on their way to the addresses that are to hear of them, over real HTTP."""

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from random import Random
from typing import Any

import httpx

from kpi_pipeline.sandbox.background import Background
from kpi_pipeline.sandbox.clock import utc_now
from kpi_pipeline.sandbox.delivery import Delivery, DeliveryLog, host_of
from kpi_pipeline.sandbox.manners import Manners

MOST_RETRIES = 5
_TIMEOUT_SECONDS = 10.0
_KEEP_ALIVE_SECONDS = 2.0
"""Less than servers grant: a connection that they close as it is used again is a lost try."""

_AT_ONCE_TO_A_HOST = 50
_AT_ONCE_TO_AN_ADDRESS = 25
"""So that an address that answers slowly leaves room for the others of its host."""

_sends: ContextVar[bool] = ContextVar("sends", default=False)


class _NothingOfDeliveries(logging.Filter):
    """Keeps the addresses out of the log: httpx would tell of each, with the secret in its path."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - the base class's name
        return not _sends.get()


_FILTER = _NothingOfDeliveries()


class Deliveries:
    """Sends events, each by itself, and logs how that went.

    An answer 2xx is a delivery; after any other, or none, it is sent again, five times at most,
    each wait twice as long as the one before. `manners` tells those of the moment.
    """

    def __init__(self, seed: int, manners: Callable[[], Manners]) -> None:
        self.log = DeliveryLog()
        self._manners = manners
        self._chance = Random(f"{seed} deliveries")  # noqa: S311 - delays, not secrets
        self._waiting: asyncio.Queue[Delivery] = asyncio.Queue()
        self._background = Background(self._work)
        self._lanes = _Lanes()

    def send(self, url: str, event: Mapping[str, Any]) -> None:
        """Send the body of an event to an address, by the manners once or twice; returns at once.

        To be called from within the event loop.
        """
        manners, chance = self._manners(), self._chance
        # All drawn in any case: a manner that is changed moves nobody else's chances.
        draws = [(chance.random(), chance.expovariate(1.0)) for _ in range(2)]
        twice = chance.random() < manners.delivery_repeats
        for draw, lateness in draws if twice else draws[:1]:
            lower = manners.event_casing == "lower" or (
                manners.event_casing == "mixed" and draw < 0.5
            )
            head = dict(event["event"])
            head["type"] = head["type"].lower() if lower else head["type"].upper()
            body = json.dumps({**event, "event": head}, ensure_ascii=False, separators=(",", ":"))
            delivery = Delivery(
                url=url,
                content=body.encode(),
                delay=manners.delivery_seconds * lateness,
                event_type=head["type"],
                workspace_id=head["workspace_id"],
                lead_id=event["data"]["lead"]["id"],
                marked_at=utc_now(),
            )
            self.log.add(delivery)
            self._waiting.put_nowait(delivery)
        self._background.start()

    async def stop(self) -> None:
        """Give up sending; what is pending is lost."""
        await self._background.stop()

    async def _work(self) -> None:
        logging.getLogger("httpx").addFilter(_FILTER)
        _sends.set(True)
        # No limit of its own: each delivery waits for its lane, and never for another host's.
        limits = httpx.Limits(max_connections=None, keepalive_expiry=_KEEP_ALIVE_SECONDS)
        async with (
            httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, limits=limits, trust_env=False) as client,
            asyncio.TaskGroup() as under_way,
        ):
            while True:
                delivery = await self._waiting.get()
                under_way.create_task(self._deliver(client, delivery))

    async def _deliver(self, client: httpx.AsyncClient, delivery: Delivery) -> None:
        await asyncio.sleep(delivery.delay)
        while True:
            async with (
                self._lanes.of_address[delivery.url],
                self._lanes.of_host[host_of(delivery.url)],
            ):
                delivery.first_sent_at = delivery.first_sent_at or utc_now()
                delivery.tries += 1
                delivery.last_status = await _status_of(client, delivery)
            if delivery.last_status is not None and 200 <= delivery.last_status < 300:
                self.log.end(delivery, utc_now())
                return
            if delivery.tries > MOST_RETRIES:
                self.log.end(delivery, None)
                return
            await asyncio.sleep(self._manners().delivery_retry_seconds * 2 ** (delivery.tries - 1))


class _Lanes:
    """How many deliveries may be under way at once: to an address, and to a host."""

    def __init__(self) -> None:
        self.of_address = defaultdict[str, asyncio.Semaphore](
            lambda: asyncio.Semaphore(_AT_ONCE_TO_AN_ADDRESS)
        )
        self.of_host = defaultdict[str, asyncio.Semaphore](
            lambda: asyncio.Semaphore(_AT_ONCE_TO_A_HOST)
        )


async def _status_of(client: httpx.AsyncClient, delivery: Delivery) -> int | None:
    """Send once; the answer's status, or None without an answer in time."""
    headers = {"Content-Type": "application/json"}
    try:
        # The client's own limit is one of silence: an answer that trickles in never meets it.
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            answer = await client.post(delivery.url, content=delivery.content, headers=headers)
    except (httpx.HTTPError, OSError, ValueError):
        # TimeoutError is an OSError. A ValueError is a name that no host can have.
        return None
    return answer.status_code
