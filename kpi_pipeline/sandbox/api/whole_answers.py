from dataclasses import dataclass, replace

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True)
class WholeAnswer:
    """An answer as the application gave it, before any of it is sent."""

    start: Message
    body: bytes

    @classmethod
    async def of(cls, app: ASGIApp, scope: Scope, receive: Receive) -> "WholeAnswer":
        """What the application answers to a call."""
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await app(scope, receive, keep)
        start, *rest = messages
        return cls(start, b"".join(message.get("body", b"") for message in rest))

    def with_body(self, body: bytes) -> "WholeAnswer":
        """The same with another body, and with a Content-Length that fits it."""
        headers = MutableHeaders(raw=list(self.start["headers"]))
        headers["content-length"] = str(len(body))
        return replace(self, start={**self.start, "headers": headers.raw}, body=body)

    def half(self) -> bytes:
        """The first half of the body."""
        return self.body[: len(self.body) // 2]

    async def send(self, send: Send) -> None:
        """Send all of it."""
        await send(self.start)
        await send({"type": "http.response.body", "body": self.body})

    async def send_half(self, send: Send) -> None:
        """Send its head, which promises all of it, and the first half of its body."""
        await send(self.start)
        await send({"type": "http.response.body", "body": self.half(), "more_body": True})
