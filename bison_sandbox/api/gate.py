"""Middleware of every API call: the log, the bottleneck, the latency, and the API key."""

import asyncio
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bison_sandbox.calls import Call, KeyKind, QueueTooLongError, key_id_of
from bison_sandbox.requests import (
    ApiError,
    ForbiddenError,
    NotFoundError,
    TooManyAttemptsError,
    UnauthenticatedError,
)
from bison_sandbox.state import Sandbox, sandbox_of
from bison_sandbox.world.clock import utc_now
from bison_sandbox.world.keys import Key
from bison_sandbox.world.workspaces import Workspace

_SLOW_PATHS = ("/api/workspaces/v1.1/stats", "/api/workspaces/v1.1/line-area-chart-stats")


@dataclass(frozen=True)
class Visit:
    """An authenticated call: its API key, and its entry in the log."""

    key: Key
    call: Call

    @property
    def with_master_key(self) -> bool:
        """Whether the call came with the master key."""
        return self.key.workspace_id is None


class Gate:
    """Middleware around the whole application; paths outside /api pass unchanged."""

    def __init__(self, app: ASGIApp, sandbox: Sandbox) -> None:
        self._app = app
        self._sandbox = sandbox

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call."""
        if scope["type"] != "http" or not scope["path"].startswith("/api/"):
            await self._app(scope, receive, send)
            return
        token = _bearer_token(scope)
        key = self._sandbox.keys.find(token)
        call = self._log(scope, token, key)

        async def send_and_log(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
            await send(message)

        try:
            admitted = await self._admit(call, key)
            scope.setdefault("state", {})["visit"] = Visit(admitted, call)
            await self._app(scope, receive, send_and_log)
        except ApiError as error:
            await error.response()(scope, receive, send_and_log)
        finally:
            call.answered_at = utc_now()

    def _log(self, scope: Scope, token: str, key: Key | None) -> Call:
        kind: KeyKind
        if key is not None:
            kind = "master" if key.workspace_id is None else "workspace"
        else:
            kind = "rejected" if token else "none"
        query = scope["query_string"].decode("latin-1")
        # The real time, even while the sandbox's clock is frozen: the log describes traffic.
        call = Call(utc_now(), scope["method"], scope["path"], query, kind, key_id_of(token))
        self._sandbox.calls.add(call)
        return call

    async def _admit(self, call: Call, key: Key | None) -> Key:
        sandbox = self._sandbox
        try:
            wait = sandbox.bottleneck.reserve_slot()
        except QueueTooLongError as error:
            seconds = error.retry_after if sandbox.variants.retry_after else None
            raise TooManyAttemptsError(seconds) from error
        await _pause(wait)
        if key is None:
            await _pause(sandbox.latency.draw(slow_tail=False))
            raise UnauthenticatedError(wrapped=sandbox.variants.wrapped_401)
        workspace_id = key.workspace_id or sandbox.user.current_workspace_id
        slow_tail = workspace_id == sandbox.workspaces.largest_id and call.path in _SLOW_PATHS
        await _pause(sandbox.latency.draw(slow_tail=slow_tail))
        if key.workspace_id is not None and sandbox.workspaces.get(key.workspace_id) is None:
            raise NotFoundError
        if key.workspace_id is None:
            sandbox.maybe_move_user()
        return key


def acting_workspace(request: Request) -> Workspace:
    """The workspace that a call acts in: the API key's own, or the user's current one.

    Raises NotFoundError if it does not exist any more.
    """
    sandbox, visit = sandbox_of(request), visit_of(request)
    # The current workspace of this moment, after the waiting: a switch by a concurrent call counts,
    # as it does live.
    workspace = sandbox.workspaces.get(visit.key.workspace_id or sandbox.user.current_workspace_id)
    if workspace is None:
        raise NotFoundError
    visit.call.workspace_id = workspace.id
    return workspace


def require_master(request: Request) -> None:
    """Raises ForbiddenError for a workspace key."""
    if not visit_of(request).with_master_key:
        raise ForbiddenError


def visit_of(request: Request) -> Visit:
    """The API key and log entry of a call."""
    visit: Visit = request.state.visit
    return visit


def _bearer_token(scope: Scope) -> str:
    scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def _pause(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)
