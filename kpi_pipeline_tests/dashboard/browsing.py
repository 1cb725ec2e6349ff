"""Calls an ASGI application in this process, as a browser would over the network."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from starlette.types import ASGIApp


class _InProcess(httpx.BaseTransport):
    def __init__(self, app: ASGIApp, portal: BlockingPortal) -> None:
        # An error of a handler is answered as in production.
        self._app = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._portal = portal

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def call() -> httpx.Response:
            response = await self._app.handle_async_request(request)
            assert isinstance(response.stream, httpx.AsyncByteStream)
            # As they were sent: the client decompresses them.
            sent = b"".join([part async for part in response.stream])
            return httpx.Response(
                response.status_code, headers=response.headers, stream=httpx.ByteStream(sent)
            )

        return self._portal.call(call)


@contextmanager
def browsing(app: ASGIApp, address: str = "http://127.0.0.1:3001") -> Iterator[httpx.Client]:
    """A browser with the application at that address. Its lifespan is not run."""
    with (
        start_blocking_portal() as portal,
        httpx.Client(transport=_InProcess(app, portal), base_url=address) as client,
    ):
        client.headers["accept"] = "text/html"
        yield client
