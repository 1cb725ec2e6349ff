"""Serves the gateway with uvicorn until it receives a signal."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from sqlalchemy.exc import DBAPIError

from kpi_pipeline.checks.freshness import Deadlines
from kpi_pipeline.db.day_zone import ensure_day_zone
from kpi_pipeline.db.server.addresses import kpi_address
from kpi_pipeline.db.server.clock import DatabaseClock
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.errors import KpiError
from kpi_pipeline.gateway.app import create_app
from kpi_pipeline.inbox.ingest import Inbox
from kpi_pipeline.settings import Settings
from kpi_pipeline.settings.webhooks import secrets_of_instances
from kpi_pipeline.web.serving import configured, open_listener, serve_until_signal

# Events are written in batches, one at a time; another connection answers /readyz.
_POOL_SIZE = 2
# Email Bison waits for an answer, and sends an event again that was answered 503.
_REFUSED_SECONDS = 3.0


def serve(
    settings: Settings,
    host: str,
    port: int,
    on_listening: Callable[[str], None],
    now: Callable[[], datetime] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, and answer active requests before the end.

    The database may be unreachable: events are answered 503 until it is back. Port 0 takes any
    free one. `on_listening` gets the URL of the webhooks, without a secret. `now` is the database's
    clock unless given.

    Raises:
        KpiError: if no database or no secret is configured, the stored dates are days of another
            zone, or the port can't be opened.
    """
    if settings.database_url is None:
        raise KpiError(
            "KPI_DATABASE_URL is not set in this process. `kpi up` runs the gateway with the "
            "embedded database; a gateway alone needs a server of yours in that variable."
        )
    secrets = secrets_of_instances(settings)
    engine = open_engine(
        kpi_address(settings), pool_size=_POOL_SIZE, refused_seconds=_REFUSED_SECONDS
    )
    inbox = Inbox(
        engine,
        settings.day_zone,
        now or DatabaseClock(engine),
        {it.name: it.url for it in settings.bison_instances},
        settings.realtime,
    )
    app = create_app(inbox, secrets, Deadlines.of(settings))
    config = configured(app, unlimited=settings.web_proxies)
    try:
        # What an unreachable or outdated database means for events, `GET /readyz` says.
        with suppress(DBAPIError):
            ensure_day_zone(engine, settings)
        with open_listener(
            host, port, "The gateway", "KPI_GATEWAY_HOST", "KPI_GATEWAY_PORT"
        ) as listener:
            serve_until_signal(
                config, listener, host, lambda url: on_listening(f"{url}/webhooks/bison/…")
            )
    finally:
        engine.dispose()
