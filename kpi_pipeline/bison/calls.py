"""One call: rate limited, sent, retried, and answered in full or with an error."""

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

import httpx
from pydantic import SecretStr

from kpi_pipeline.bison import errors
from kpi_pipeline.bison.answers import (
    AnswerError,
    ReportedFailureError,
    collecting_unknown_fields,
    load,
    loads,
    message_of,
)
from kpi_pipeline.bison.call_stats import calling, note_waiting, waiting_for
from kpi_pipeline.bison.errors import (
    BisonError,
    MalformedAnswer,
    RateLimited,
    RefusedRequest,
    RejectedKey,
    Unavailable,
    WorkspaceGone,
    excerpt,
    without_secrets,
)
from kpi_pipeline.bison.model import ClientOptions, KeyUse, WorkspaceRef
from kpi_pipeline.bison.protocols import Pacing
from kpi_pipeline.bison.rate_limits import RateLimits
from kpi_pipeline.retry import Backoff, async_tries, is_transient_status, retry_after_seconds

# Between the tries of one call.
BACKOFF = Backoff(first=1.0, longest=29.0, jitter=1.0)

_log = logging.getLogger(__name__)

T = TypeVar("T")


class BearerKey(httpx.Auth):
    """Sends an API key as a bearer token; no URL and no repr holds the key."""

    def __init__(self, key: SecretStr) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the Authorization header."""
        request.headers["Authorization"] = f"Bearer {self._key.get_secret_value()}"
        yield request


def is_sendable(key: SecretStr) -> bool:
    """Whether the key fits into a header.

    The HTTP libraries reject a header with a line break or a curly quote, and quote it in the text
    of their error: such a key must not reach them.
    """
    return re.fullmatch(r"[\x21-\x7e]+", key.get_secret_value()) is not None


@dataclass(frozen=True)
class Call:
    """A request without its key: method, path, query parameters and JSON body.

    One that creates something is not `repeatable`: sent again after a time-out, it might create it
    twice. Errors mask `secrets`, which the body holds and an answer may quote.
    """

    method: str
    path: str
    params: Mapping[str, str | int] | None = None
    json: Mapping[str, object] | None = field(default=None, repr=False)
    repeatable: bool = True
    secrets: tuple[SecretStr, ...] = ()

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Access:
    """The client and the API key that calls are made with."""

    instance: str
    ref: WorkspaceRef | None
    key: SecretStr
    use: KeyUse

    @property
    def client(self) -> str:
        """The client's workspace, or the instance where a call concerns no single client."""
        return self.ref.workspace if self.ref else f"instance {self.instance}"

    @property
    def holder(self) -> str:
        """Whose key it is: a client's, or the instance's."""
        return self.client if self.use is KeyUse.WORKSPACE else f"instance {self.instance}"


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
        self._limits = RateLimits(pacing)
        self.calls_made = 0
        self.unknown_fields: Counter[tuple[str, str]] = Counter()

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
                errors.for_key(access.use),
            )
        # A call that got no answer may have been carried out; one that got a 429 was not.
        transient = (RateLimited, Unavailable) if call.repeatable else RateLimited
        async for attempt in async_tries(
            self._options.attempts,
            BACKOFF,
            lambda error: isinstance(error, transient),
            asked_pause=_asked_pause,
            before_pause=_note_retry,
        ):
            with attempt:
                number = attempt.retry_state.attempt_number
                sent_at, response = await self._send(call, access, number)
        try:
            with collecting_unknown_fields() as fields:
                body = load(response.content)
                # 202, 203, 206 and the like promise no whole answer, or not the instance's own.
                if response.status_code not in (200, 201):
                    raise AnswerError(
                        f"answered {response.status_code}, which promises no whole answer"
                    )
                value = decode(body)
        except AnswerError as problem:
            raise malformed(access, call, problem) from None
        self.unknown_fields.update((str(call), field) for field in fields)
        return Answered(sent_at, value)

    async def _send(
        self, call: Call, access: Access, attempt: int
    ) -> tuple[datetime, httpx.Response]:
        """One try; returns an answer of status 2xx alone."""
        this_try = f"at try {attempt} of {self._options.attempts}"
        # Calls with the master key follow one another. In one line with the others they would be
        # left over at the end, when nothing else makes use of the rate.
        slot = self._pacing.slot(ahead=access.use is KeyUse.MASTER)
        async with waiting_for(slot):
            sent_at = self._now()
            self.calls_made += 1
            try:
                with calling():
                    response = await self._exchange(call, access)
            except (httpx.TransportError, TimeoutError) as error:
                raise Unavailable(
                    access.client,
                    str(call),
                    f"got no answer {this_try}: {self._seen(error, access.key)}",
                    errors.UNAVAILABLE,
                ) from None
            except httpx.DecodingError:
                problem = AnswerError("answered with a body that can't be decompressed")
                raise malformed(access, call, problem) from None
        if response.is_success:
            self._limits.answered(access.holder)
            return sent_at, response
        failure = _error_for(call, access, response, this_try)
        if isinstance(failure, RateLimited):
            asked = retry_after_seconds(response.headers.get("Retry-After"), self._now())
            failure.alone_seconds = await self._limits.limited(access.holder, asked)
        raise failure

    async def _exchange(self, call: Call, access: Access) -> httpx.Response:
        # httpx bounds each wait for bytes; a body that trickles for ever needs a total as well.
        async with asyncio.timeout(self._options.timeout_seconds):
            return await self._http.request(
                call.method,
                call.path,
                params=call.params,
                json=call.json,
                auth=BearerKey(access.key),
            )

    def _seen(self, error: Exception, key: SecretStr) -> str:
        if isinstance(error, (TimeoutError, httpx.TimeoutException)):
            return f"time-out ({self._options.timeout_seconds:g} s)"
        return excerpt(without_secrets(f"{type(error).__name__} {error}"), key)


def _asked_pause(error: BaseException) -> float | None:
    # 0 where the rate limiter holds back everybody: the next slot is the pause.
    return error.alone_seconds if isinstance(error, RateLimited) else None


def _note_retry(error: BaseException, seconds: float) -> None:
    note_waiting(seconds)
    if isinstance(error, BisonError):
        what = f"{error.client}: {error.call} {error.what}"
        _log.warning("%s. Retrying in %.1f s.", what, seconds)


def malformed(access: Access, call: Call, problem: AnswerError) -> MalformedAnswer:
    """The error for an answer that can't be believed."""
    message = problem.message if isinstance(problem, ReportedFailureError) else ""
    return MalformedAnswer(
        access.client,
        str(call),
        excerpt(str(problem), access.key, *call.secrets),
        errors.MALFORMED,
        message=excerpt(message, access.key, *call.secrets),
    )


def _error_for(call: Call, access: Access, response: httpx.Response, this_try: str) -> BisonError:
    """The error for an unsuccessful status."""
    status = response.status_code
    # Never the body as it is: a proxy in front of the instance answers with pages of HTML.
    message = excerpt(message_of(loads(response.content)), access.key, *call.secrets)
    what = f"answered {status}" + (f" ({message.rstrip('.')})" if message else "")
    kind: type[BisonError] = RefusedRequest
    remedy = errors.ADDRESS if status < 400 or status == 404 else errors.REFUSED
    if status in (401, 403):
        kind, remedy = RejectedKey, errors.for_key(access.use)
    elif status == 404 and access.ref:
        kind, remedy = WorkspaceGone, errors.GONE
    elif status == 429:
        kind, remedy, what = RateLimited, errors.RATE_LIMITED, f"{what} {this_try}"
    elif is_transient_status(status):
        kind, remedy, what = Unavailable, errors.UNAVAILABLE, f"{what} {this_try}"
    return kind(access.client, str(call), what, remedy, status, message)
