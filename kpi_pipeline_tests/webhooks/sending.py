"""Gateways as real processes, and a sender that tells of each event when it was sent and taken."""

import asyncio
import json
import os
import random
import secrets
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.services.processes import Child, answers, free_port

_AT_ONCE = 40
_START_SECONDS = 60.0


@dataclass
class Gateway:
    """A gateway on a port of its own, which may be killed and started again."""

    port: int
    secret: str
    folder: Path
    child: Child | None = None
    starts: int = 0

    @property
    def url(self) -> str:
        """Where Email Bison's webhooks go."""
        return f"http://127.0.0.1:{self.port}/webhooks/bison/{self.secret}"

    def start(self) -> None:
        """Start its process."""
        self.starts += 1
        environment = dict(os.environ) | {"KPI_WEBHOOK_SECRET_MAIN": self.secret}
        command = [sys.executable, "-m", "kpi_pipeline.cli.main", "gateway"]
        log = self.folder / f"gateway-{self.port}-{self.starts}.log"
        self.child = Child("The gateway", [*command, "--port", str(self.port)], environment, log)

    def wait_until_ready(self) -> None:
        """Wait until it takes events in."""
        assert self.child is not None
        ready = f"http://127.0.0.1:{self.port}/readyz"
        self.child.wait_until(lambda: answers(ready), _START_SECONDS)

    def kill(self) -> None:
        """End it as a crash does."""
        assert self.child is not None
        os.kill(self.child.pid, 9)
        self.stop()

    def stop(self) -> None:
        """End it, in order where it still runs."""
        if self.child is not None:
            self.child.stop()
            self.child = None


@contextmanager
def gateways(folder: Path, count: int) -> Iterator[list[Gateway]]:
    """Gateways of one instance `main`, ready; the environment names their database."""
    secret = secrets.token_urlsafe(32)
    running = [Gateway(free_port(), secret, folder) for _ in range(count)]
    try:
        for gateway in running:
            gateway.start()
        for gateway in running:
            gateway.wait_until_ready()
        yield running
    finally:
        for gateway in running:
            gateway.stop()


@dataclass
class Lead:
    """A lead that was marked: the body that tells of it, and when it was first taken in."""

    workspace: str
    marked_at: datetime
    body: Mapping[str, Any]
    taken_at: datetime | None = None

    def content(self, chance: random.Random) -> bytes:
        """Its body as it is sent once: in either casing."""
        event = dict(self.body["event"])
        event["type"] = chance.choice([str.lower, str.upper])(event["type"])
        return json.dumps({**self.body, "event": event}).encode()


@dataclass
class Ledger:
    """All leads that were marked, to be looked at from another thread."""

    leads: list[Lead] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, leads: Sequence[Lead]) -> None:
        """Leads that were just marked."""
        with self.lock:
            self.leads.extend(leads)

    def snapshot(self) -> list[tuple[str, datetime, datetime | None]]:
        """Client, moment of marking and of being taken in, of each."""
        with self.lock:
            return [(lead.workspace, lead.marked_at, lead.taken_at) for lead in self.leads]


def send(gateways: Sequence[Gateway], leads: Sequence[Lead], chance: random.Random) -> None:
    """Send the events to any of the gateways, many at once; each is answered with 200."""

    async def all_of_them() -> None:
        places = asyncio.Semaphore(_AT_ONCE)
        async with httpx.AsyncClient(timeout=120, trust_env=False) as client:

            async def one(lead: Lead, url: str, content: bytes) -> None:
                async with places:
                    answer = await client.post(url, content=content)
                assert answer.status_code == 200, answer.text
                lead.taken_at = lead.taken_at or utc_now()

            await asyncio.gather(
                *(one(it, chance.choice(gateways).url, it.content(chance)) for it in leads)
            )

    asyncio.run(all_of_them())
