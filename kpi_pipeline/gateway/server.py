"""Serves the gateway with uvicorn until it receives a signal."""

import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import uvicorn
from sqlalchemy.exc import DBAPIError
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from kpi_pipeline.checks.freshness import Deadlines
from kpi_pipeline.db.day_zone import ensure_day_zone
from kpi_pipeline.db.server.clock import DatabaseClock
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.db.server.urls import parse_url
from kpi_pipeline.errors import KpiError
from kpi_pipeline.gateway.app import create_app
from kpi_pipeline.inbox.ingest import Inbox
from kpi_pipeline.settings import Settings
from kpi_pipeline.settings.webhooks import secrets_of_instances

HEAD_SECONDS = 10.0
# Further requests are answered 503, as each may hold a body of a mebibyte in memory.
_MAX_CONCURRENT_REQUESTS = 1_000
# Shorter than the time after which `kpi up` kills a process that does not stop.
_SHUTDOWN_SECONDS = 5


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
    engine = open_engine(parse_url(settings.database_url.get_secret_value(), "KPI_DATABASE_URL"))
    inbox = Inbox(
        engine,
        settings.day_zone,
        now or DatabaseClock(engine),
        {it.name: it.url for it in settings.bison_instances},
        settings.realtime,
    )
    config = configured(create_app(inbox, secrets, Deadlines.of(settings)))
    try:
        # What an unreachable or outdated database means for events, `GET /readyz` says.
        with suppress(DBAPIError):
            ensure_day_zone(engine, settings)
        with _listener(host, port) as listener:
            shown = f"[{host}]" if ":" in host else host
            url = f"http://{shown}:{listener.getsockname()[1]}/webhooks/bison/…"
            # uvicorn raises the signal again after it has stopped.
            with suppress(KeyboardInterrupt):
                _Server(config, lambda: on_listening(url)).run(sockets=[listener])
    finally:
        engine.dispose()


def configured(app: Starlette) -> uvicorn.Config:
    """uvicorn's configuration for the gateway."""
    return uvicorn.Config(
        app,
        http=TimeoutProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        # It would log the secret in each URL.
        access_log=False,
        server_header=False,
        limit_concurrency=_MAX_CONCURRENT_REQUESTS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )


class TimeoutProtocol(H11Protocol):
    """uvicorn's protocol, with a time limit for the head of a request, which uvicorn lacks.

    Closes a connection that has not sent a whole head within `HEAD_SECONDS`, or twice that for a
    later request on the same connection. For bodies see `webhooks.BODY_SECONDS`.
    """

    _timer: asyncio.TimerHandle | None = None
    _request_before: object = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_SECONDS, self._check, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _check(self, transport: asyncio.Transport) -> None:
        # None before the first request.
        request: Any = self.cycle
        between = request is None or request.response_complete
        # uvicorn itself closes a connection that idles between two requests.
        idle = self.timeout_keep_alive_task is not None
        if between and not idle and request is self._request_before:
            transport.close()
            return
        self._request_before = request if between else object()
        self._timer = self.loop.call_later(HEAD_SECONDS, self._check, transport)


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
