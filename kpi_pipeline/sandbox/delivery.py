"""One sending of an event to one address, and the log of them."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

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
