"""Connections that say nothing, or too little for too long, are closed."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0


class ImpatientProtocol(H11Protocol):
    """uvicorn's own, which waits for ever for the head of a request; this one does not.

    Whoever has not sent the whole head of a request within `HEAD_SECONDS` (twice that, for a later
    request on the same connection) is cut off. For bodies see `webhooks`.
    """

    _look: asyncio.TimerHandle | None = None
    _request_before: object = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look after it."""
        super().connection_made(transport)
        self._look = self.loop.call_later(HEAD_SECONDS, self._look_after, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Look after it no longer."""
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def _look_after(self, transport: asyncio.Transport) -> None:
        # None before the first request.
        request: Any = self.cycle
        between = request is None or request.response_complete
        # A connection that idles between two requests is uvicorn's to close.
        idle = self.timeout_keep_alive_task is not None
        if between and not idle and request is self._request_before:
            transport.close()
            return
        self._request_before = request if between else object()
        self._look = self.loop.call_later(HEAD_SECONDS, self._look_after, transport)
