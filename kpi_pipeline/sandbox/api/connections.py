"""What a fault does to a connection: wait on it, and end it before the answer is whole."""

import asyncio
import logging
from contextvars import ContextVar

from starlette.types import Message, Receive

_ends_early: ContextVar[bool] = ContextVar("ends_early", default=False)


class _NothingOfCallsThatEndEarly(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - the base class's name
        return not _ends_early.get()


_FILTER = _NothingOfCallsThatEndEarly()


def end_early() -> None:
    """Let the call that this task serves end without a whole answer, and nothing be logged of it.

    The server takes such an end for an error of ours and closes the connection, as it should.
    """
    logging.getLogger("uvicorn.error").addFilter(_FILTER)
    _ends_early.set(True)


async def has_left_within(seconds: float, receive: Receive) -> bool:
    """Wait so long, or until the caller has left; whether it has. The body was read before."""
    try:
        async with asyncio.timeout(seconds):
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return False
    except asyncio.CancelledError:
        end_early()  # The server stops.
        raise
    return True


async def whole_body(receive: Receive) -> bytes | None:
    """All that the caller sends; None if it leaves before that."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part: bytes = message.get("body", b"")
        body += part
        if not message.get("more_body", False):
            return body


def replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that tells a body that was read before, and then what really comes."""
    told = False

    async def receive_again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
