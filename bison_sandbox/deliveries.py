"""Events on their way to the addresses that are to hear of them, over real HTTP."""

import asyncio
import json
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx

from bison_sandbox.background import Background
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
    """Where a workspace wants to hear of some types of event."""

    id: int
    workspace_id: int
    name: str
    url: str
    events: list[str]
    created_at: datetime
    updated_at: datetime


class WebhookUrls:
    """The webhooks of all workspaces, in the order in which they were made."""

    def __init__(self) -> None:
        self._last_id = 0
        self._all: dict[int, WebhookUrl] = {}

    def add(
        self, workspace_id: int, name: str, url: str, events: list[str], now: datetime
    ) -> WebhookUrl:
        """Register a webhook; an id is never used twice."""
        self._last_id += 1
        hook = WebhookUrl(self._last_id, workspace_id, name, url, events, now, now)
        self._all[hook.id] = hook
        return hook

    def of(self, workspace_id: int) -> list[WebhookUrl]:
        """The webhooks of one workspace."""
        return [hook for hook in self._all.values() if hook.workspace_id == workspace_id]

    def subscribed(self, workspace_id: int, event: str) -> list[str]:
        """The addresses that are to hear of a type of event in one workspace."""
        return [hook.url for hook in self.of(workspace_id) if event in hook.events]

    def get(self, hook_id: int) -> WebhookUrl | None:
        """The webhook with this id, in whatever workspace."""
        return self._all.get(hook_id)

    def remove(self, hook_id: int) -> None:
        """Forget a webhook."""
        del self._all[hook_id]


_KEPT = 50_000


@dataclass
class Delivery:
    """An event on its way to an address.

    `url` holds the receiver's secret, so it shows in no repr. `delay` is by how many seconds the
    delivery is late by itself. Times are real ones, even where the sandbox's clock stands still:
    they tell of traffic. `last_status` is None where the last try got no answer.
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
    """The deliveries since the last reset, in the order in which they were asked for.

    The last 50,000 are kept; the counts are of all of them.
    """

    def __init__(self) -> None:
        self.pending = self.delivered = self.given_up = 0
        self._deliveries: deque[Delivery] = deque(maxlen=_KEPT)

    def add(self, delivery: Delivery) -> None:
        """Keep a delivery that has just been asked for."""
        self.pending += 1
        self._deliveries.append(delivery)

    def end(self, delivery: Delivery, delivered_at: datetime | None) -> None:
        """Note that a delivery arrived, or, without a time, that it is given up."""
        delivery.delivered_at = delivered_at
        delivery.given_up = delivered_at is None
        delivery.content = b""
        self.pending -= 1
        self.delivered += delivered_at is not None
        self.given_up += delivered_at is None

    def newest(self, limit: int | None) -> Iterator[Delivery]:
        """The last so many of those that are kept, all without a limit; first come first."""
        skipped = 0 if limit is None else max(0, len(self._deliveries) - limit)
        return (each for place, each in enumerate(self._deliveries) if place >= skipped)

    def reset(self) -> None:
        """Forget all that have ended; those under way stay, and are counted when they end."""
        self.delivered = self.given_up = 0
        self._deliveries = deque((each for each in self._deliveries if each.is_pending), _KEPT)


def host_of(url: str) -> str:
    """Host and port of an address, without a name or a password that stand before them."""
    return urlsplit(url).netloc.rpartition("@")[2]


def shown_url(url: str) -> str:
    """Host and path of an address, but for the last part of the path, which is secret."""
    path, _, _ = urlsplit(url).path.rstrip("/").rpartition("/")
    return f"{host_of(url)}{path}/…"


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
    each wait twice as long as the one before. `variants` tells those of the moment.
    """

    def __init__(self, seed: int, variants: Callable[[], Variants]) -> None:
        self.log = DeliveryLog()
        self._manners = variants
        self._chance = Random(f"{seed} deliveries")  # noqa: S311 - delays, not secrets
        self._waiting: asyncio.Queue[Delivery] = asyncio.Queue()
        self._background = Background(self._work)
        self._lanes = _Lanes()

    def send(self, url: str, event: Mapping[str, Any]) -> None:
        """Send the body of an event to an address, by the variants once or twice; returns at once.

        To be called from within the event loop.
        """
        variants, chance = self._manners(), self._chance
        # All drawn in any case: a variant that is changed moves nobody else's chances.
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
