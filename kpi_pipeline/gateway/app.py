"""The gateway as an ASGI application."""

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Route

from kpi_pipeline.checks.freshness import Deadlines
from kpi_pipeline.db.inbox import Receipt
from kpi_pipeline.db.retry import is_away, retry_while_disconnected
from kpi_pipeline.domain.events.event import EventSource
from kpi_pipeline.domain.events.parse import understand
from kpi_pipeline.gateway.batches import Arrival, Batches
from kpi_pipeline.gateway.freshness import Freshness
from kpi_pipeline.gateway.health import alive, ready
from kpi_pipeline.gateway.webhooks import Webhooks
from kpi_pipeline.inbox.ingest import Inbox, ingest

# A connection that broke is no reason to send an event back; a server that is away is.
_PATIENCE_SECONDS = 1.0

_log = logging.getLogger(__name__)


def create_app(
    inbox: Inbox, secrets: Mapping[str, SecretStr], deadlines: Deadlines | None = None
) -> Starlette:
    """The gateway of these instances' webhooks; `secrets` by the name of the instance.

    `deadlines` are those of `GET /freshness`.
    """
    stored_only = replace(inbox, realtime=False)
    freshness = Freshness(inbox.engine, inbox.timezone, inbox.now, deadlines or Deadlines())

    def take(arrivals: Sequence[Arrival]) -> list[Receipt]:
        events = [
            understand(
                it.body,
                instance=it.instance,
                source=EventSource.WEBHOOK,
                arrived_at=it.at,
                tz=inbox.timezone,
            )
            for it in arrivals
        ]
        try:
            return retry_while_disconnected(
                lambda: ingest(inbox, events), seconds=_PATIENCE_SECONDS
            )
        except Exception as error:
            if is_away(error):
                raise
            trouble = error
        # Whatever is wrong with the rest, what came in is kept.
        receipts = retry_while_disconnected(
            lambda: ingest(stored_only, events), seconds=_PATIENCE_SECONDS
        )
        _log.error("Events are stored and left to Dagster's sensor to apply", exc_info=trouble)
        return receipts

    batches = Batches(take)
    webhooks = Webhooks(inbox, batches, secrets)

    @asynccontextmanager
    async def at_work(_: Starlette) -> AsyncIterator[None]:
        async with batches.at_work():
            yield

    app = Starlette(
        routes=[
            Route("/webhooks/bison/{secret}", webhooks.receive, methods=["POST"]),
            Route("/healthz", alive),
            Route("/readyz", ready),
            Route("/freshness", freshness.answer),
        ],
        lifespan=at_work,
    )
    # A redirect would repeat the secret.
    app.router.redirect_slashes = False
    app.state.engine = inbox.engine
    return app
