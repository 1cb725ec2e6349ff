import re

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from kpi_pipeline.sandbox.api.broken import broken_answer, edited
from kpi_pipeline.sandbox.api.connections import (
    end_early,
    has_left_within,
    replayed,
    whole_body,
)
from kpi_pipeline.sandbox.api.gate import Visit
from kpi_pipeline.sandbox.api.whole_answers import WholeAnswer
from kpi_pipeline.sandbox.errors import ApiError
from kpi_pipeline.sandbox.fault_kinds import (
    Cut,
    Edit,
    Empty,
    Fault,
    Html,
    MoveUser,
    Reset,
    Slow,
    Stall,
    Status,
    SuccessFalse,
)
from kpi_pipeline.sandbox.requests import json_body
from kpi_pipeline.sandbox.state import Sandbox

_SWITCH = "/api/workspaces/v1.1/switch-workspace"
_NEW_KEY = re.compile(r"/api/workspaces/v1\.1/(\d{1,18})/api-tokens")


class Faulty:
    """Middleware between the gate and the endpoints, where faults strike; other calls just pass."""

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
        standing = self._sandbox.faults.strike(
            scope["method"], scope["path"], workspace_id, master=visit.with_master_key
        )
        again = replayed(body, receive)
        if standing is None:
            await self._app(scope, again, send)
            return
        fault = standing.fault
        visit.call.fault = fault.kind
        if isinstance(fault, Status | SuccessFalse | Empty | Html):
            visit.call.workspace_id = workspace_id
            await broken_answer(fault, self._sandbox.manners)(scope, receive, send)
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
        """The workspace that a call would be answered for, as the log would name it."""
        path = request.url.path
        if visit.with_master_key and path == _SWITCH:
            team_id = (await json_body(request)).get("team_id")
            return team_id if type(team_id) is int else None
        if visit.with_master_key and (found := _NEW_KEY.fullmatch(path)):
            return int(found[1])
        return visit.key.workspace_id or self._sandbox.user.current_workspace_id

    async def _spoil(self, fault: Fault, answer: WholeAnswer, receive: Receive, send: Send) -> None:
        """Do to the real answer what the fault does to it."""
        match fault:
            case MoveUser():
                # Before the caller has the answer, so that its next call can't overtake the user.
                self._move_user(fault)
                await answer.send(send)
            case Edit():
                body = edited(fault, answer.body, self._sandbox.manners)
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
