"""Answers that go on for long, such as a live page's: they end soon after their visitor is gone."""

from collections.abc import Awaitable, Callable
from time import monotonic

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# How often the visitor is looked up again.
LOOK_UP_SECONDS = 20.0


class LoggedOutError(OSError):
    """The rest of an answer is not sent. Servers raise an OSError where the browser has left."""


class Watched:
    """Sends the answer to a request for as long as `is_welcome` holds for its scope."""

    def __init__(
        self, is_welcome: Callable[[Scope], Awaitable[bool]], scope: Scope, send: Send
    ) -> None:
        self._is_welcome, self._scope, self._send = is_welcome, scope, send
        self._due = monotonic() + LOOK_UP_SECONDS
        self._is_over = False

    async def run(self, app: ASGIApp, receive: Receive) -> None:
        """Have the application answer."""
        try:
            await app(self._scope, receive, self._pass_on)
        except Exception:
            # It could not send the rest.
            if not self._is_over:
                raise

    async def _pass_on(self, message: Message) -> None:
        if self._is_over:
            raise LoggedOutError
        goes_on = message.get("more_body", False) or message["type"] == "websocket.send"
        if goes_on and monotonic() >= self._due:
            if not await self._is_welcome(self._scope):
                self._is_over = True
                await self._send(
                    {"type": "http.response.body", "body": b"", "more_body": False}
                    if self._scope["type"] == "http"
                    else {"type": "websocket.close", "code": 1008, "reason": ""}
                )
                raise LoggedOutError
            self._due = monotonic() + LOOK_UP_SECONDS
        await self._send(message)
