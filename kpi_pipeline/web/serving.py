"""Serves an ASGI application with uvicorn until a signal: the gateway's server, and the pages'."""

import errno
import gc
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from kpi_pipeline.errors import KpiError
from kpi_pipeline.web.connections import protocol

# Shorter than the time after which `kpi up` kills a process that does not stop.
_SHUTDOWN_SECONDS = 5


def configured(
    app: ASGIApp,
    *,
    proxies: Sequence[str] = ("127.0.0.1",),
    unlimited: Sequence[str] = ("127.0.0.1", "::1"),
) -> uvicorn.Config:
    """uvicorn's configuration. Of `proxies`, X-Forwarded-For and -Proto are believed.

    The addresses and networks `unlimited` may open more connections than others.
    """
    return uvicorn.Config(
        app,
        # It calls this as it would call the class.
        http=cast(Any, protocol(unlimited)),
        ws="none",
        lifespan="on",
        log_config=None,
        # It would log the secret in each URL of the gateway.
        access_log=False,
        server_header=False,
        forwarded_allow_ips=list(proxies),
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )


class Server(uvicorn.Server):
    """uvicorn, which says when it listens, and when it begins to stop.

    `on_stopping` ends answers without an end, such as streams of events: uvicorn would wait for
    them in vain, and cut them off.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        on_listening: Callable[[], None],
        on_stopping: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._on_listening = on_listening
        self._on_stopping = on_stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self._on_listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say that it stops, and stop."""
        self._on_stopping()
        await super().shutdown(sockets)


def serve_until_signal(
    config: uvicorn.Config,
    listener: socket.socket,
    host: str,
    on_listening: Callable[[str], None],
    on_stopping: Callable[[], None] = lambda: None,
) -> None:
    """Serve on the listener until SIGINT or SIGTERM, and answer active requests before the end.

    `on_listening` gets the URL of the server at `host`, without a slash at its end.
    """
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listener.getsockname()[1]}"
    _collect_less_often()
    # uvicorn raises the signal again after it has stopped.
    with suppress(KeyboardInterrupt):
        Server(config, lambda: on_listening(url), on_stopping).run(sockets=[listener])


def _collect_less_often() -> None:
    """Leave what was imported out of garbage collections, and collect less often.

    A request makes many small objects and few cycles. Collections took a quarter of a page's time,
    and those of all objects made one page in thirty three times as slow.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def open_listener(
    host: str, port: int, name: str, host_setting: str, port_setting: str
) -> socket.socket:
    """A socket that listens; port 0 takes any free one.

    Raises:
        KpiError: if that port can't be opened; the message calls the server `name`, such as "The
            gateway", and names both settings.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2_048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise KpiError(
                f"Port {port} on {host} is in use. Stop what listens there, or choose another with "
                f"{port_setting} or --port (0: any free one)."
            ) from None
        raise KpiError(
            f"{name} can't listen on port {port} of {host}: {error.strerror or error}. "
            f"Choose another host or port ({host_setting}, {port_setting})."
        ) from None
