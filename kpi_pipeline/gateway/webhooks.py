"""`POST /webhooks/bison/{secret}`: receives Email Bison's events, and stores them."""

import asyncio
import hmac
import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import SecretStr
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from kpi_pipeline.domain.events.kinds import TEST_MARKER
from kpi_pipeline.errors import KpiError
from kpi_pipeline.gateway.batches import Arrival, Batches, UnavailableError
from kpi_pipeline.inbox.ingest import Inbox
from kpi_pipeline.web.connections import RETRY_AFTER_SECONDS

MAX_BODY_BYTES = 1024 * 1024
BODY_SECONDS = 10.0
# zlib's "window bits": a header of gzip; a header of zlib, or none, as some senders read "deflate".
_GZIP = (16 + zlib.MAX_WBITS,)
_WINDOW_BITS = {
    "gzip": _GZIP,
    "x-gzip": _GZIP,
    "deflate": (zlib.MAX_WBITS, -zlib.MAX_WBITS),
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Webhooks:
    """The endpoint; `secrets` maps an instance to the last part of its webhooks' URL."""

    inbox: Inbox
    batches: Batches
    secrets: Mapping[str, SecretStr]

    async def receive(self, request: Request) -> Response:
        """Store the body, and answer once it is committed.

        200: stored, or stored before; invalid bodies, too, as the sender repeats what is answered
        otherwise. 404: unknown secret. 408, 413: the body is too slow, or too large as it is sent
        or unpacked. 503: nothing can be stored now, try again.
        """
        instance = self._instance_of(request.path_params["secret"])
        if instance is None:
            return _error(404, "There is nothing here.")
        try:
            return await self._receive_of(instance, request)
        except asyncio.CancelledError:
            # The server is stopping, and waits no longer for active requests.
            return _error(503, "Try again later: the gateway is stopping.")

    async def _receive_of(self, instance: str, request: Request) -> Response:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body_of(request)
        except TimeoutError:
            return _error(408, f"The body did not arrive within {BODY_SECONDS:g} seconds.")
        except ClientDisconnect:
            return _error(400, "The connection was closed before the body was complete.")
        if body is not None:
            body = _unpacked(body, request.headers.getlist("content-encoding"))
        if body is None:
            return _error(413, f"A body may have at most {MAX_BODY_BYTES} bytes, unpacked, too.")
        test_name = request.query_params.get(TEST_MARKER)
        try:
            arrival = Arrival(instance, body, self.inbox.now(), test_name)
            receipt = await self.batches.ingest(arrival)
        except UnavailableError as reason:
            return _error(503, f"Try again later: {reason}.")
        except KpiError:
            _log.exception("An event of %s could not be stored", instance)
            return _error(503, "Try again later: the gateway must be restarted; see its log.")
        except Exception:  # noqa: BLE001 - the caller gets a sentence, the log the details
            _log.exception("An event of %s could not be stored", instance)
            return _error(500, "The event could not be stored; the log of the gateway says why.")
        answer = {"id": receipt.event_id, "status": receipt.status, "new": receipt.is_new}
        if receipt.reason is not None:
            answer["reason"] = receipt.reason
        return JSONResponse(answer)

    def _instance_of(self, secret: str) -> str | None:
        """The instance of the secret. All are compared, in constant time."""
        given = secret.encode("utf-8", "replace")
        found = [
            name
            for name, known in self.secrets.items()
            if hmac.compare_digest(given, known.get_secret_value().encode())
        ]
        return found[0] if found else None


async def _body_of(request: Request) -> bytes | None:
    """The whole body, or None if it is too large."""
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)


def _unpacked(body: bytes, encodings: Sequence[str]) -> bytes | None:
    """The body before it was compressed with gzip or deflate, or None if that is too large.

    What can't be unpacked stays as it came, to be stored: a proxy may have unpacked it already, and
    left the header.
    """
    names = [it.strip().lower() for header in encodings for it in header.split(",")]
    # The last of several encodings was applied last.
    for name in reversed(names):
        for window_bits in _WINDOW_BITS.get(name, ()):
            unpacker = zlib.decompressobj(window_bits)
            try:
                found = unpacker.decompress(body, MAX_BODY_BYTES + 1)
            except zlib.error:
                continue
            if len(found) > MAX_BODY_BYTES:
                return None
            if unpacker.eof and not unpacker.unused_data:
                body = found
                break
    return body


def _error(status: int, sentence: str) -> Response:
    # The rest of the body is thrown away.
    headers = {"Connection": "close"}
    if status == 503:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return JSONResponse({"error": sentence}, status, headers)
