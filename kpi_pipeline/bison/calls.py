"""One call: paced, sent, tried again while that may help, and answered in full or with an error."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

import httpx
from pydantic import SecretStr

from kpi_pipeline.bison import remedies
from kpi_pipeline.bison.answers import AnswerError, load, loads, message_of
from kpi_pipeline.bison.auth import BearerKey, is_sendable
from kpi_pipeline.bison.call_count import note_call
from kpi_pipeline.bison.errors import (
    BisonError,
    MalformedAnswer,
    RateLimited,
    RefusedRequest,
    RejectedKey,
    Unavailable,
    WorkspaceGone,
)
from kpi_pipeline.bison.excerpts import excerpt
from kpi_pipeline.bison.model import ClientOptions, KeyUse, WorkspaceRef
from kpi_pipeline.bison.ports import Pacing
from kpi_pipeline.bison.retries import TRANSIENT_TROUBLE, is_transient, seconds_to_wait, tries

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """A request without its key: method, path, query parameters and JSON body."""

    method: str
    path: str
    params: Mapping[str, str | int] | None = None
    json: Mapping[str, int] | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Access:
    """On whose behalf and with which key calls are made."""

    instance: str
    ref: WorkspaceRef | None
    key: SecretStr
    use: KeyUse

    @property
    def client(self) -> str:
        """The client's slug, or the instance where a call concerns no single client."""
        return self.ref.workspace if self.ref else f"instance {self.instance}"


@dataclass(frozen=True)
class Answered(Generic[T]):
    """An answer, and the moment (UTC) just before the request that it answers was sent."""

    sent_at: datetime
    value: T


class Caller:
    """Makes calls to one instance."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        pacing: Pacing,
        options: ClientOptions,
        now: Callable[[], datetime],
    ) -> None:
        self._http = http
        self._pacing = pacing
        self._options = options
        self._now = now
        self.calls_made = 0

    async def call(self, call: Call, access: Access, decode: Callable[[object], T]) -> Answered[T]:
        """Make a call and decode the JSON of its answer.

        `decode` raises AnswerError for JSON that it can't believe.

        Raises:
            BisonError: the subclass that fits; RateLimited and Unavailable after the last try.
        """
        if not is_sendable(access.key):
            raise RejectedKey(
                access.client,
                str(call),
                "was not sent: the key is empty or holds characters that no key has",
                remedies.for_key(access.use),
            )
        async for attempt in tries(self._options.attempts):
            with attempt:
                sent_at, response = await self._send(call, access, attempt.num)
        try:
            return Answered(sent_at, decode(load(response.content)))
        except AnswerError as fault:
            raise MalformedAnswer(
                access.client,
                str(call),
                excerpt(str(fault), access.key),
                remedies.MALFORMED,
            ) from None

    async def _send(
        self, call: Call, access: Access, attempt: int
    ) -> tuple[datetime, httpx.Response]:
        """One try; returns an answer of status 2xx alone."""
        await self._pacing.turn()
        sent_at = self._now()
        self.calls_made += 1
        note_call()
        this_try = f"at try {attempt} of {self._options.attempts}"
        try:
            # httpx bounds each wait for bytes; a body that trickles for ever needs a total as well.
            async with asyncio.timeout(self._options.timeout_seconds):
                response = await self._http.request(
                    call.method,
                    call.path,
                    params=call.params,
                    json=call.json,
                    auth=BearerKey(access.key),
                )
        except TRANSIENT_TROUBLE as trouble:
            raise Unavailable(
                access.client,
                str(call),
                f"got no answer {this_try}: {self._seen(trouble, access.key)}",
                remedies.UNAVAILABLE,
            ) from None
        except httpx.DecodingError:
            raise MalformedAnswer(
                access.client,
                str(call),
                "answered with a body that can't be decompressed",
                remedies.MALFORMED,
            ) from None
        if response.is_success:
            return sent_at, response
        if response.status_code == 429:
            await self._pacing.push_back(
                seconds_to_wait(response.headers.get("Retry-After"), self._now())
            )
        raise _refusal(call, access, response, this_try)

    def _seen(self, trouble: Exception, key: SecretStr) -> str:
        if isinstance(trouble, (TimeoutError, httpx.TimeoutException)):
            return f"time-out ({self._options.timeout_seconds:g} s)"
        return excerpt(f"{type(trouble).__name__} {trouble}", key)


def _refusal(call: Call, access: Access, response: httpx.Response, this_try: str) -> BisonError:
    """The error that an unsuccessful status stands for."""
    status = response.status_code
    # Never the body as it is: a proxy in front of the instance answers with pages of HTML.
    message = excerpt(message_of(loads(response.content)), access.key)
    what = f"answered {status}" + (f" ({message.rstrip('.')})" if message else "")
    client, name = access.client, str(call)
    if status in (401, 403):
        return RejectedKey(client, name, what, remedies.for_key(access.use))
    if status == 404 and access.ref:
        return WorkspaceGone(client, name, what, remedies.GONE)
    if status == 429:
        return RateLimited(client, name, f"{what} {this_try}", remedies.RATE_LIMITED)
    if is_transient(status):
        return Unavailable(client, name, f"{what} {this_try}", remedies.UNAVAILABLE)
    remedy = remedies.ADDRESS if status < 400 or status == 404 else remedies.REFUSED
    return RefusedRequest(client, name, what, remedy, status, message)
