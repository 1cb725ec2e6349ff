"""The gateway as an ASGI application."""

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Route

from kpi_pipeline.checks.freshness import Deadlines
from kpi_pipeline.db.events.inbox import Receipt
from kpi_pipeline.db.server.retry import is_away, retry_while_disconnected
from kpi_pipeline.domain.events.event import EventSource
from kpi_pipeline.domain.events.parse import parse_event
from kpi_pipeline.gateway.batches import Arrival, Batches
from kpi_pipeline.gateway.busy_clients import BusyClients
from kpi_pipeline.gateway.health import Health
from kpi_pipeline.gateway.last_write import LastWrite
from kpi_pipeline.gateway.webhooks import Webhooks
from kpi_pipeline.inbox.ingest import Inbox, ingest, ingest_without_waiting

# Long enough for a broken connection, too short for a server that is down: that is answered 503.
_RETRY_SECONDS = 1.0

_log = logging.getLogger(__name__)


def create_app(
    inbox: Inbox, secrets: Mapping[str, SecretStr], deadlines: Deadlines | None = None
) -> Starlette:
    """The gateway for webhooks of the instances in `secrets` (instance → secret).

    `deadlines` are those of `GET /freshness`.
    """
    stored_only = replace(inbox, realtime=False)
    busy = BusyClients(inbox)
    last_write = LastWrite()
    health = Health(inbox.engine, inbox.day_zone, inbox.now, deadlines or Deadlines(), last_write)

    def take(arrivals: Sequence[Arrival]) -> list[Receipt]:
        events = [
            parse_event(
                it.body,
                instance=it.instance,
                source=EventSource.WEBHOOK,
                arrived_at=it.at,
                tz=inbox.day_zone,
                test_name=it.test_name,
            )
            for it in arrivals
        ]
        known = busy.workspaces()
        try:
            ingested = retry_while_disconnected(
                lambda: ingest_without_waiting(inbox, events, busy=known), seconds=_RETRY_SECONDS
            )
            busy.add(ingested.busy)
            return ingested.receipts
        except Exception as error:
            if is_away(error):
                raise
            problem = error
        # The numbers can't be computed now, but the events are stored.
        receipts = retry_while_disconnected(
            lambda: ingest(stored_only, events), seconds=_RETRY_SECONDS
        )
        _log.error("Events are stored and left to Dagster's sensor to apply", exc_info=problem)
        return receipts

    batches = Batches(take, last_write)
    webhooks = Webhooks(inbox, batches, secrets)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        with busy.working():
            async with batches.working():
                yield

    app = Starlette(
        routes=[
            Route("/webhooks/bison/{secret}", webhooks.receive, methods=["POST"]),
            Route("/healthz", health.alive),
            Route("/readyz", health.ready),
            Route("/freshness", health.fresh),
        ],
        lifespan=lifespan,
    )
    # A redirect would repeat the secret in its Location.
    app.router.redirect_slashes = False
    return app
