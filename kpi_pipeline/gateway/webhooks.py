"""`POST /webhooks/bison/{secret}`: where Email Bison sends its events."""

import asyncio
import hmac
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import SecretStr
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from kpi_pipeline.domain.events.event import EventStatus
from kpi_pipeline.gateway.batches import Arrival, Batches, UnavailableError
from kpi_pipeline.inbox.ingest import Inbox

LARGEST_BODY = 1024 * 1024
BODY_SECONDS = 10.0
_RETRY_AFTER_SECONDS = 10

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Webhooks:
    """The endpoint; `secrets` has the last part of the address of each instance's webhooks."""

    inbox: Inbox
    batches: Batches
    secrets: Mapping[str, SecretStr]

    async def receive(self, request: Request) -> Response:
        """Store the body, and answer when it is committed.

        200 for all that is stored, what came in before included; 400 for what can't be understood,
        which is stored, too; 404 for an unknown secret, 408 and 413 for a body that is too slow or
        too large, and 503 while nothing can be stored, so that the sender tries again.
        """
        instance = self._instance_of(request.path_params["secret"])
        if instance is None:
            return _refusal(404, "There is nothing here.")
        try:
            return await self._receive_of(instance, request)
        except asyncio.CancelledError:
            # The server stops, and waits no longer for what is under way.
            return _refusal(503, "Try again later: the gateway is being stopped.")

    async def _receive_of(self, instance: str, request: Request) -> Response:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body_of(request)
        except TimeoutError:
            return _refusal(408, f"The body did not come within {BODY_SECONDS:g} seconds.")
        except ClientDisconnect:
            return _refusal(400, "The sender went away before the body was whole.")
        if body is None:
            return _refusal(413, f"A body may have {LARGEST_BODY} bytes at most.")
        try:
            receipt = await self.batches.ingest(Arrival(instance, body, self.inbox.now()))
        except UnavailableError as reason:
            return _refusal(503, f"Try again later: {reason}.")
        except Exception:  # noqa: BLE001 - the caller gets a sentence, the log the rest
            _log.exception("An event of %s could not be stored", instance)
            return _refusal(500, "The event could not be stored; the log of the gateway says why.")
        answer = {"id": receipt.event_id, "status": receipt.status, "new": receipt.is_new}
        if receipt.reason is not None:
            answer["reason"] = receipt.reason
        return JSONResponse(answer, 400 if receipt.status is EventStatus.INVALID else 200)

    def _instance_of(self, secret: str) -> str | None:
        """The instance whose secret this is. Each is compared, in a time that tells nothing."""
        told = secret.encode("utf-8", "replace")
        found = [
            name
            for name, known in self.secrets.items()
            if hmac.compare_digest(told, known.get_secret_value().encode())
        ]
        return found[0] if found else None


async def _body_of(request: Request) -> bytes | None:
    """The whole body, or None for one that is too large."""
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced) > LARGEST_BODY:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            return None
    return bytes(body)


def _refusal(status: int, sentence: str) -> Response:
    # Whatever of the body is still to come is not waited for.
    headers = {"Connection": "close"}
    if status == 503:
        headers["Retry-After"] = str(_RETRY_AFTER_SECONDS)
    return JSONResponse({"error": sentence}, status, headers)
