"""Delivers events to webhook addresses, over real HTTP and with the vendor's retries."""

import asyncio
import json
import logging
import ssl
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx

from bison_sandbox.variants import Variants
from bison_sandbox.world.clock import utc_now

_KEPT = 50_000
_KEPT_BODIES = 2_000
"""How many ended deliveries can be sent again."""


@dataclass
class Delivery:
    """The delivery of one event to one address.

    `url` contains the receiver's secret, so no repr shows it. `delay` is in seconds, before the
    first try. Times are real ones even while the sandbox's clock is frozen, since they describe
    traffic. `last_status` is None if the last try got no answer.
    """

    id: int
    url: str = field(repr=False)
    content: bytes = field(repr=False)
    delay: float
    event_type: str
    workspace_id: int
    sent_by: int
    lead_id: int | None
    marked_at: datetime
    first_sent_at: datetime | None = None
    delivered_at: datetime | None = None
    tries: int = 0
    last_status: int | None = None
    given_up: bool = False

    @property
    def is_pending(self) -> bool:
        """Whether it may still be sent."""
        return self.delivered_at is None and not self.given_up


class DeliveryLog:
    """The deliveries since the last reset, in order; the last 50,000 are kept, all are counted."""

    def __init__(self) -> None:
        self.pending = self.delivered = self.given_up = 0
        self._deliveries: deque[Delivery] = deque(maxlen=_KEPT)
        self._with_body: dict[int, Delivery] = {}

    def add(self, delivery: Delivery) -> None:
        """Add a new delivery."""
        self.pending += 1
        self._deliveries.append(delivery)

    def ended(self, delivery_id: int) -> Delivery | None:
        """One of the last 2,000 deliveries that arrived or were given up, with its body."""
        return self._with_body.get(delivery_id)

    def end(self, delivery: Delivery, delivered_at: datetime | None) -> None:
        """Record that a delivery arrived, or, without a time, that it is given up."""
        delivery.delivered_at = delivered_at
        delivery.given_up = delivered_at is None
        self._with_body[delivery.id] = delivery
        if len(self._with_body) > _KEPT_BODIES:
            self._with_body.pop(next(iter(self._with_body))).content = b""
        self.pending -= 1
        self.delivered += delivered_at is not None
        self.given_up += delivered_at is None

    def newest(self, limit: int | None) -> Iterator[Delivery]:
        """The last `limit` deliveries that are kept, or all of them, oldest first."""
        skipped = 0 if limit is None else max(0, len(self._deliveries) - limit)
        return (each for place, each in enumerate(self._deliveries) if place >= skipped)

    def reset(self) -> None:
        """Drop the ended deliveries; pending ones stay, and are counted when they end."""
        self.delivered = self.given_up = 0
        self._deliveries = deque((each for each in self._deliveries if each.is_pending), _KEPT)


def host_of(url: str) -> str:
    """Host and port of an address, without user name and password."""
    return urlsplit(url).netloc.rpartition("@")[2]


def shown_url(url: str) -> str:
    """Host and path of an address without the last part of the path, which is secret."""
    path, _, _ = urlsplit(url).path.rstrip("/").rpartition("/")
    return f"{host_of(url)}{path}/…"


MOST_RETRIES = 5
_KEEP_ALIVE_SECONDS = 2.0
"""Shorter than servers keep a connection open: reusing one that they close costs a try."""

_AT_ONCE_TO_A_HOST = 50
_AT_ONCE_TO_AN_ADDRESS = 25
"""Fewer than per host: a slow address leaves room for the others of its host."""

_sends: ContextVar[bool] = ContextVar("sends", default=False)


class _NoDeliveries(logging.Filter):
    """Keeps deliveries out of httpx's log, which would show the secret in the address's path."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - the base class's name
        return not _sends.get()


_FILTER = _NoDeliveries()


class Deliveries:
    """Sends events, each one separately, and logs the results.

    An answer 200 ends a delivery; after any other answer, or none in time, it is sent again, up to
    five times, each wait twice as long as the one before. `variants` returns the current ones.
    """

    def __init__(self, seed: int, variants: Callable[[], Variants]) -> None:
        self.log = DeliveryLog()
        self._last_id = 0
        self._variants = variants
        self._chance = Random(f"{seed} deliveries")  # noqa: S311 - delays, not secrets
        self._waiting: asyncio.Queue[Delivery] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._lanes = _Lanes()

    def send(self, url: str, event: Mapping[str, Any], *, sent_by: int | None = None) -> None:
        """Queue a payload or feed row for an address, once or twice as the variants say.

        `sent_by` is the workspace that sends it, None for the event's own. Must be called from
        within the event loop.
        """
        variants, chance = self._variants(), self._chance
        # Draw all in any case: changing a variant must not change the draws of later deliveries.
        draws = [(chance.random(), chance.expovariate(1.0)) for _ in range(2)]
        twice = chance.random() < variants.delivery_repeats
        lost = chance.random() < variants.delivery_losses
        for draw, lateness in draws if twice else draws[:1]:
            lower = variants.event_casing == "lower" or (
                variants.event_casing == "mixed" and draw < 0.5
            )
            payload = event.get("payload", event)
            head = dict(payload["event"])
            head["type"] = head["type"].lower() if lower else head["type"].upper()
            payload = {**payload, "event": head}
            body = {**event, "payload": payload} if "payload" in event else payload
            self._queue(
                Delivery(
                    id=self._next_id(),
                    url=url,
                    content=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(),
                    delay=variants.delivery_seconds * lateness,
                    event_type=head["type"],
                    workspace_id=head["workspace_id"],
                    sent_by=head["workspace_id"] if sent_by is None else sent_by,
                    lead_id=payload["data"].get("lead", {}).get("id"),
                    marked_at=utc_now(),
                ),
                lost=lost,
            )

    def retry(self, delivery: Delivery) -> None:
        """Send an ended delivery once more, as a delivery of its own."""
        again = replace(
            delivery,
            id=self._next_id(),
            delay=0.0,
            first_sent_at=None,
            delivered_at=None,
            tries=0,
            last_status=None,
            given_up=False,
        )
        self._queue(again, lost=False)

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _queue(self, delivery: Delivery, *, lost: bool) -> None:
        self.log.add(delivery)
        if lost:
            self.log.end(delivery, None)
            return
        self._waiting.put_nowait(delivery)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Stop sending; pending deliveries are lost."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _work(self) -> None:
        logging.getLogger("httpx").addFilter(_FILTER)
        _sends.set(True)
        # No limit here: each delivery waits for its own lane only.
        limits = httpx.Limits(max_connections=None, keepalive_expiry=_KEEP_ALIVE_SECONDS)
        async with (
            httpx.AsyncClient(
                timeout=None,  # noqa: S113 - `_status_of` has one for the whole answer
                limits=limits,
                trust_env=False,
                verify=_tls(),
            ) as client,
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
                delivery.last_status = await _status_of(
                    client, delivery, self._variants().delivery_timeout_seconds
                )
            if delivery.last_status == 200:
                self.log.end(delivery, utc_now())
                return
            if delivery.tries > MOST_RETRIES:
                self.log.end(delivery, None)
                return
            await asyncio.sleep(self._variants().delivery_retry_seconds * 2 ** (delivery.tries - 1))


@cache
def _tls() -> ssl.SSLContext:
    """One for all sandboxes of a process: loading the certificates takes 50 ms."""
    return httpx.create_ssl_context()


class _Lanes:
    """Limits the concurrent deliveries, per address and per host."""

    def __init__(self) -> None:
        self.of_address = defaultdict[str, asyncio.Semaphore](
            lambda: asyncio.Semaphore(_AT_ONCE_TO_AN_ADDRESS)
        )
        self.of_host = defaultdict[str, asyncio.Semaphore](
            lambda: asyncio.Semaphore(_AT_ONCE_TO_A_HOST)
        )


async def _status_of(
    client: httpx.AsyncClient, delivery: Delivery, timeout_seconds: float
) -> int | None:
    """Send once; return the status, or None without an answer in time."""
    headers = {"Content-Type": "application/json"}
    try:
        # httpx's time-out is for each read: an answer that trickles in never exceeds it.
        async with asyncio.timeout(timeout_seconds):
            answer = await client.post(delivery.url, content=delivery.content, headers=headers)
    except (httpx.HTTPError, OSError, ValueError):
        # TimeoutError is an OSError. A ValueError comes from an invalid host name.
        return None
    return answer.status_code
