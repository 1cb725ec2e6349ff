"""Delivers events to webhook addresses, over real HTTP and with the vendor's retries."""

import asyncio
import json
import logging
import ssl
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx

from bison_sandbox.variants import Variants
from bison_sandbox.world.clock import utc_now

EVENT_TYPES = (
    "email_sent",
    "manual_email_sent",
    "lead_first_contacted",
    "lead_replied",
    "lead_interested",
    "lead_unsubscribed",
    "untracked_reply_received",
    "email_opened",
    "email_bounced",
    "email_account_added",
    "email_account_removed",
    "email_account_disconnected",
    "email_account_reconnected",
    "tag_attached",
    "tag_removed",
    "warmup_disabled_receiving_bounces",
    "warmup_disabled_causing_bounces",
)


@dataclass
class WebhookUrl:
    """A workspace's webhook: an address, and the types of event that it subscribes to."""

    id: int
    workspace_id: int
    name: str
    url: str
    events: list[str]
    created_at: datetime
    updated_at: datetime


class WebhookUrls:
    """The webhooks of all workspaces, in order of creation."""

    def __init__(self) -> None:
        self._last_id = 0
        self._all: dict[int, WebhookUrl] = {}

    def add(
        self, workspace_id: int, name: str, url: str, events: list[str], now: datetime
    ) -> WebhookUrl:
        """Register a webhook; ids are never reused."""
        self._last_id += 1
        hook = WebhookUrl(self._last_id, workspace_id, name, url, events, now, now)
        self._all[hook.id] = hook
        return hook

    def of(self, workspace_id: int) -> list[WebhookUrl]:
        """The webhooks of one workspace."""
        return [hook for hook in self._all.values() if hook.workspace_id == workspace_id]

    def subscribed(self, workspace_id: int, event: str) -> list[str]:
        """The addresses of one workspace that subscribe to a type of event."""
        return [hook.url for hook in self.of(workspace_id) if event in hook.events]

    def get(self, hook_id: int) -> WebhookUrl | None:
        """The webhook with this id, in any workspace."""
        return self._all.get(hook_id)

    def remove(self, hook_id: int) -> None:
        """Remove a webhook."""
        del self._all[hook_id]


_KEPT = 50_000


@dataclass
class Delivery:
    """The delivery of one event to one address.

    `url` contains the receiver's secret, so no repr shows it. `delay` is in seconds, before the
    first try. Times are real ones even while the sandbox's clock is frozen, since they describe
    traffic. `last_status` is None if the last try got no answer.
    """

    url: str = field(repr=False)
    content: bytes = field(repr=False)
    delay: float
    event_type: str
    workspace_id: int
    lead_id: int
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

    def add(self, delivery: Delivery) -> None:
        """Add a new delivery."""
        self.pending += 1
        self._deliveries.append(delivery)

    def end(self, delivery: Delivery, delivered_at: datetime | None) -> None:
        """Record that a delivery arrived, or, without a time, that it is given up."""
        delivery.delivered_at = delivered_at
        delivery.given_up = delivered_at is None
        delivery.content = b""
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
_TIMEOUT_SECONDS = 10.0
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

    An answer 2xx ends a delivery; after any other answer, or none, it is sent again, up to five
    times, each wait twice as long as the one before. `variants` returns the current ones.
    """

    def __init__(self, seed: int, variants: Callable[[], Variants]) -> None:
        self.log = DeliveryLog()
        self._variants = variants
        self._chance = Random(f"{seed} deliveries")  # noqa: S311 - delays, not secrets
        self._waiting: asyncio.Queue[Delivery] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._lanes = _Lanes()

    def send(self, url: str, event: Mapping[str, Any]) -> None:
        """Queue an event for an address, once or twice as the variants say; does not wait.

        Must be called from within the event loop.
        """
        variants, chance = self._variants(), self._chance
        # Draw all in any case: changing a variant must not change the draws of later deliveries.
        draws = [(chance.random(), chance.expovariate(1.0)) for _ in range(2)]
        twice = chance.random() < variants.delivery_repeats
        for draw, lateness in draws if twice else draws[:1]:
            lower = variants.event_casing == "lower" or (
                variants.event_casing == "mixed" and draw < 0.5
            )
            head = dict(event["event"])
            head["type"] = head["type"].lower() if lower else head["type"].upper()
            body = json.dumps({**event, "event": head}, ensure_ascii=False, separators=(",", ":"))
            delivery = Delivery(
                url=url,
                content=body.encode(),
                delay=variants.delivery_seconds * lateness,
                event_type=head["type"],
                workspace_id=head["workspace_id"],
                lead_id=event["data"]["lead"]["id"],
                marked_at=utc_now(),
            )
            self.log.add(delivery)
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
                timeout=_TIMEOUT_SECONDS, limits=limits, trust_env=False, verify=_tls()
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
                delivery.last_status = await _status_of(client, delivery)
            if delivery.last_status is not None and 200 <= delivery.last_status < 300:
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


async def _status_of(client: httpx.AsyncClient, delivery: Delivery) -> int | None:
    """Send once; return the status, or None without an answer in time."""
    headers = {"Content-Type": "application/json"}
    try:
        # httpx's time-out is for each read: an answer that trickles in never exceeds it.
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            answer = await client.post(delivery.url, content=delivery.content, headers=headers)
    except (httpx.HTTPError, OSError, ValueError):
        # TimeoutError is an OSError. A ValueError comes from an invalid host name.
        return None
    return answer.status_code
