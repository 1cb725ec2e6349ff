"""Middleware that carries out faults: other answers, edited ones, delays, broken connections."""

import asyncio
import json
import logging
import re
from contextvars import ContextVar
from dataclasses import dataclass, replace
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bison_sandbox.api.answers import raw_json
from bison_sandbox.api.gate import Visit
from bison_sandbox.faults import (
    Cut,
    Edit,
    Empty,
    Fault,
    Html,
    MoveUser,
    NoSuchPlaceError,
    Reset,
    Slow,
    Stall,
    Status,
    SuccessFalse,
    with_twice,
    with_value,
    without,
)
from bison_sandbox.requests import (
    ApiError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    TooManyAttemptsError,
    UnauthenticatedError,
    json_body,
)
from bison_sandbox.state import Sandbox
from bison_sandbox.variants import Variants

_RETRY_AFTER_SECONDS = 1
_WITHOUT_BODY = (204, 304)
_PAGE = (
    "<!DOCTYPE html>\n<html><head><title>{title}</title></head>\n"
    "<body><center><h1>{title}</h1></center><hr><center>proxy</center></body></html>\n"
)


def broken_answer(fault: Status | SuccessFalse | Empty | Html, variants: Variants) -> Response:
    """The answer that replaces the real one."""
    match fault:
        case SuccessFalse():
            data = {"success": fault.value, "message": fault.message}
            return Response(json.dumps({"data": data}), media_type="application/json")
        case Empty():
            return Response(b"", media_type="application/json")
        case Html():
            return HTMLResponse(_PAGE.format(title="One moment, please"))
    return _with_status(fault, variants)


def edited(fault: Edit, body: bytes, variants: Variants) -> bytes:
    """A body with the fault's change. Raises ApiError, a 500, if the body has no such place."""
    try:
        # Not strict: with another variant, the body holds raw control characters.
        document = json.loads(body, strict=False)
        if fault.remove:
            document = without(document, fault.pointer)
        elif fault.repeat:
            document = with_twice(document, fault.pointer)
        else:
            document = with_value(document, fault.pointer, fault.value)
    except (ValueError, NoSuchPlaceError) as error:
        raise ApiError(
            500, f"The fault `edit` finds no place {fault.pointer} that it could change so."
        ) from error
    if variants.control_characters:
        return raw_json(document)
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _with_status(fault: Status, variants: Variants) -> Response:
    error = _error(fault, variants)
    headers = error.headers
    if fault.status in _WITHOUT_BODY:
        return Response(status_code=fault.status)
    if fault.html:
        title = f"{fault.status} {_phrase(fault.status)}"
        return HTMLResponse(_PAGE.format(title=fault.message or title), fault.status, headers)
    return error.response()


def _error(fault: Status, variants: Variants) -> ApiError:
    status = fault.status
    match status:
        case 401:
            message = fault.message or "Unauthenticated."
            return UnauthenticatedError(wrapped=variants.wrapped_401, message=message)
        case 422:
            message = fault.message or "The given data was invalid."
            return InvalidError({"request": [message]})
        case 429:
            wait = fault.retry_after
            if wait is None:
                wait = _RETRY_AFTER_SECONDS if variants.retry_after else False
            message = fault.message or "Too Many Attempts."
            return TooManyAttemptsError(None if wait is False else wait, message)
    usual = {403: str(ForbiddenError()), 404: str(NotFoundError()), 500: "Server Error"}
    return ApiError(status, fault.message or usual.get(status, _phrase(status)))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


_ends_early: ContextVar[bool] = ContextVar("ends_early", default=False)


class _NoEarlyEnds(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - the base class's name
        return not _ends_early.get()


_FILTER = _NoEarlyEnds()


def end_early() -> None:
    """Let the call of this task end without a complete answer, and without a line in the log.

    The server takes that for an error of the application and closes the connection, as intended.
    """
    logging.getLogger("uvicorn.error").addFilter(_FILTER)
    _ends_early.set(True)


async def has_left_within(seconds: float, receive: Receive) -> bool:
    """Wait until the caller leaves or the time is over; return whether it left."""
    try:
        async with asyncio.timeout(seconds):
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return False
    except asyncio.CancelledError:
        end_early()  # The server is stopping.
        raise
    return True


async def whole_body(receive: Receive) -> bytes | None:
    """The complete body of the request; None if the caller leaves before that."""
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
    """A `receive` that returns a body that was read before, and then the real messages."""
    replayed_already = False

    async def receive_again() -> Message:
        nonlocal replayed_already
        if replayed_already:
            return await receive()
        replayed_already = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


@dataclass(frozen=True)
class WholeAnswer:
    """An answer of the application, before any of it is sent."""

    start: Message
    body: bytes

    @classmethod
    async def of(cls, app: ASGIApp, scope: Scope, receive: Receive) -> "WholeAnswer":
        """The application's answer to a call."""
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
        """Send the headers, with the full Content-Length, and the first half of the body."""
        await send(self.start)
        await send({"type": "http.response.body", "body": self.half(), "more_body": True})


_SWITCH = "/api/workspaces/v1.1/switch-workspace"
_NEW_KEY = re.compile(r"/api/workspaces/v1\.1/(\d{1,18})/api-tokens")


class Faulty:
    """Middleware between the gate and the endpoints; calls without a fault pass unchanged."""

    def __init__(self, app: ASGIApp, sandbox: Sandbox) -> None:
        self._app = app
        self._sandbox = sandbox

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call."""
        visit: Visit | None = scope.get("state", {}).get("visit")
        if visit is None or not self._sandbox.faults.all():
            await self._app(scope, receive, send)
            return
        body = await whole_body(receive)
        if body is None:
            return
        request = Request(scope, replayed(body, receive))
        workspace_id = await self._workspace_id(request, visit)
        active = self._sandbox.faults.strike(
            scope["method"], scope["path"], workspace_id, master=visit.with_master_key
        )
        again = replayed(body, receive)
        if active is None:
            await self._app(scope, again, send)
            return
        fault = active.fault
        visit.call.fault = fault.kind
        if isinstance(fault, Status | SuccessFalse | Empty | Html):
            visit.call.workspace_id = workspace_id
            await broken_answer(fault, self._sandbox.variants)(scope, receive, send)
        elif isinstance(fault, Slow):
            if not await has_left_within(fault.seconds, receive):
                await self._app(scope, again, send)
        elif isinstance(fault, MoveUser) and fault.when == "before":
            self._move_user(fault)
            await self._app(scope, again, send)
        else:
            answer = await WholeAnswer.of(self._app, scope, again)
            await self._spoil(fault, answer, receive, send)

    async def _workspace_id(self, request: Request, visit: Visit) -> int | None:
        """The workspace that the call acts in, as the log shows it."""
        path = request.url.path
        if visit.with_master_key and path == _SWITCH:
            team_id = (await json_body(request)).get("team_id")
            return team_id if type(team_id) is int else None
        if visit.with_master_key and (found := _NEW_KEY.fullmatch(path)):
            return int(found[1])
        return visit.key.workspace_id or self._sandbox.user.current_workspace_id

    async def _spoil(self, fault: Fault, answer: WholeAnswer, receive: Receive, send: Send) -> None:
        """Send the real answer as the fault changes it."""
        match fault:
            case MoveUser():
                # Move before sending the answer, or the caller's next call could come first.
                self._move_user(fault)
                await answer.send(send)
            case Edit():
                body = edited(fault, answer.body, self._sandbox.variants)
                await answer.with_body(body).send(send)
            case Cut():
                await answer.with_body(answer.half()).send(send)
            case Stall():
                await answer.send_half(send)
                if not await has_left_within(fault.seconds, receive):
                    end_early()
            case Reset():
                await answer.send_half(send)
                end_early()

    def _move_user(self, fault: MoveUser) -> None:
        if self._sandbox.workspaces.get(fault.to) is None:
            raise ApiError(500, f"The fault `move_user` finds no workspace {fault.to} any more.")
        self._sandbox.user.switch(fault.to)
