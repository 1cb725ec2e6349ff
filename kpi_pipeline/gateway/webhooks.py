"""`POST /webhooks/bison/{secret}`: receives Email Bison's events, and stores them."""

import asyncio
import hmac
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import SecretStr
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from kpi_pipeline.domain.events.event import EventStatus
from kpi_pipeline.errors import KpiError
from kpi_pipeline.gateway.batches import Arrival, Batches, UnavailableError
from kpi_pipeline.inbox.ingest import Inbox

MAX_BODY_BYTES = 1024 * 1024
BODY_SECONDS = 10.0
_RETRY_AFTER_SECONDS = 10

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Webhooks:
    """The endpoint; `secrets` maps an instance to the last part of its webhooks' URL."""

    inbox: Inbox
    batches: Batches
    secrets: Mapping[str, SecretStr]

    async def receive(self, request: Request) -> Response:
        """Store the body, and answer once it is committed.

        200: stored, or stored before. 400: stored, but not a valid event. 404: unknown secret.
        408, 413: the body is too slow or too large. 503: nothing can be stored now, try again.
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
        if body is None:
            return _error(413, f"A body may have at most {MAX_BODY_BYTES} bytes.")
        try:
            receipt = await self.batches.ingest(Arrival(instance, body, self.inbox.now()))
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
        return JSONResponse(answer, 400 if receipt.status is EventStatus.INVALID else 200)

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


def _error(status: int, sentence: str) -> Response:
    # The rest of the body is not read.
    headers = {"Connection": "close"}
    if status == 503:
        headers["Retry-After"] = str(_RETRY_AFTER_SECONDS)
    return JSONResponse({"error": sentence}, status, headers)
