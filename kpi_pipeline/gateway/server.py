"""Serves the gateway until it is told to stop."""

import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

import uvicorn
from starlette.applications import Starlette

from kpi_pipeline.checks.freshness import Deadlines
from kpi_pipeline.db.engine import open_engine
from kpi_pipeline.db.urls import parse_url
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.errors import KpiError
from kpi_pipeline.gateway.app import create_app
from kpi_pipeline.gateway.connections import ImpatientProtocol
from kpi_pipeline.gateway.secrets import secrets_of_instances
from kpi_pipeline.inbox.ingest import Inbox
from kpi_pipeline.settings import Settings

# Beyond that, callers are told to come back: each may bring a body of a megabyte.
_MOST_CALLS_AT_ONCE = 1_000
# Less than whoever stops it waits before it is killed.
_LAST_ANSWERS_SECONDS = 5


def serve(
    settings: Settings,
    host: str,
    port: int,
    on_listening: Callable[[str], None],
    now: Callable[[], datetime] = utc_now,
) -> None:
    """Serve until SIGINT or SIGTERM, and answer what is under way before the end.

    The database may be away: events are refused, to be sent again, until it is there. Port 0 takes
    any free one. `on_listening` is told the address of the webhooks, without a secret.

    Raises:
        KpiError: if no database or no secret is configured, or the address can't be had.
    """
    if settings.database_url is None:
        raise KpiError(
            "KPI_DATABASE_URL is not set in this process. `kpi up` runs the gateway with the "
            "embedded database; for one by itself, set the variable to a server of yours."
        )
    secrets = secrets_of_instances(settings)
    engine = open_engine(parse_url(settings.database_url.get_secret_value(), "KPI_DATABASE_URL"))
    inbox = Inbox(
        engine,
        settings.timezone,
        now,
        {it.name: it.url for it in settings.bison_instances},
        settings.realtime,
    )
    config = configured(create_app(inbox, secrets, Deadlines.of(settings)))
    try:
        with _listener(host, port) as listener:
            shown = f"[{host}]" if ":" in host else host
            url = f"http://{shown}:{listener.getsockname()[1]}/webhooks/bison/…"
            # It ends by the signal that stopped it, when all is answered.
            with suppress(KeyboardInterrupt):
                _Server(config, lambda: on_listening(url)).run(sockets=[listener])
    finally:
        engine.dispose()


def configured(app: Starlette) -> uvicorn.Config:
    """How uvicorn is to serve the gateway."""
    return uvicorn.Config(
        app,
        http=ImpatientProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        # It would write the secret of each address that is called.
        access_log=False,
        server_header=False,
        limit_concurrency=_MOST_CALLS_AT_ONCE,
        timeout_graceful_shutdown=_LAST_ANSWERS_SECONDS,
    )


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_listening()


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2_048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise KpiError(
                f"Port {port} on {host} is in use. Stop what listens there, or choose another with "
                "KPI_GATEWAY_PORT or --port (0: any free one)."
            ) from None
        raise KpiError(
            f"The gateway can't listen on port {port} of {host}: {error.strerror or error}. "
            "Choose another host or port (KPI_GATEWAY_HOST, KPI_GATEWAY_PORT)."
        ) from None
