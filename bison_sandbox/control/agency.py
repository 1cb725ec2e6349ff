"""Control of the agency: setup, its list of clients, the clock, and its workspaces."""

import csv
import io
from datetime import datetime
from ipaddress import IPv6Address, ip_address

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bison_sandbox.requests import (
    ApiError,
    InvalidError,
    NotFoundError,
    base_url,
    json_body,
    text_field,
)
from bison_sandbox.state import sandbox_of
from bison_sandbox.world.workspaces import Workspace


class LoopbackOnly:
    """Middleware that answers all but the API only to this machine, since it hands out keys."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        outside = (
            scope["type"] == "http"
            and not scope["path"].startswith("/api/")
            and not is_loopback(scope["client"][0] if scope.get("client") else "")
        )
        if outside:
            error = ApiError(403, "The sandbox's own switches answer on this machine only.")
            await error.response()(scope, receive, send)
            return
        await self._app(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Whether a caller's address is one of this machine."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


_CSV_HEADER = (
    "instance",
    "bison_workspace_id",
    "name",
    "display_name",
    "active",
    "monthly_kpi_target",
    "monthly_sending_target",
    "min_reply_rate",
    "api_key",
)
# Percent. The replies of the invented clients are some 0.3 % of their emails, in a week often less.
_MIN_REPLY_RATE = "0.1"


def routes() -> list[BaseRoute]:
    """The endpoints of this file."""
    one = "/sandbox/workspaces/{workspace_id:int}"
    return [
        Route("/sandbox/setup", show_setup, methods=["GET"]),
        Route("/sandbox/clients.csv", show_clients_csv, methods=["GET"]),
        Route("/sandbox/clock", set_clock, methods=["POST"]),
        Route("/sandbox/workspaces", add_workspace, methods=["POST"]),
        Route(one, delete_workspace, methods=["DELETE"]),
        Route(f"{one}/restore", restore_workspace, methods=["POST"]),
        Route(f"{one}/rename", rename_workspace, methods=["POST"]),
    ]


async def show_setup(request: Request) -> Response:
    """What a client needs first: the address, the master key, the date and the zone."""
    sandbox = sandbox_of(request)
    return JSONResponse(
        {
            "instance_url": base_url(request),
            "master_key": sandbox.master_key.token,
            "today": sandbox.clock.today().isoformat(),
            "timezone": sandbox.timezone,
        }
    )


async def show_clients_csv(request: Request) -> Response:
    """The agency's own list of its clients, with their API keys and targets."""
    sandbox = sandbox_of(request)
    instance = request.query_params.get("instance", "main")
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_CSV_HEADER)
    for workspace in sandbox.workspaces.present():
        rows.writerow(
            (
                instance,
                workspace.id,
                workspace.name,
                workspace.display_name,
                "yes",
                workspace.monthly_kpi_target,
                workspace.monthly_sending_target,
                _MIN_REPLY_RATE,
                workspace.own_key.token if workspace.own_key else "",
            )
        )
    return Response(text.getvalue(), media_type="text/csv")


async def set_clock(request: Request) -> Response:
    """Freeze the clock at `now`, an ISO instant with its offset; null lets it run again."""
    body = await json_body(request)
    clock = sandbox_of(request).clock
    now = body.get("now", "")
    clock.freeze(None if now is None else _instant(now))
    return JSONResponse({"now": clock.now().isoformat(), "today": clock.today().isoformat()})


async def add_workspace(request: Request) -> Response:
    """Add a workspace that starts today, without an own API key and without targets."""
    sandbox = sandbox_of(request)
    name = text_field(await json_body(request), "name")
    workspace = sandbox.workspaces.add(name, sandbox.clock.now(), sandbox.clock.today())
    return JSONResponse({"id": workspace.id, "name": workspace.name}, 201)


async def delete_workspace(request: Request) -> Response:
    """Delete a workspace; if the user is in it, move the user to another one."""
    workspace = present_workspace(request, request.path_params["workspace_id"])
    workspace.deleted = True
    sandbox_of(request).leave(workspace.id)
    return JSONResponse({"id": workspace.id, "deleted": True})


async def restore_workspace(request: Request) -> Response:
    """Restore a deleted workspace, with its API keys and numbers."""
    workspace = sandbox_of(request).workspaces.get_deleted(request.path_params["workspace_id"])
    if workspace is None:
        raise NotFoundError
    workspace.deleted = False
    return JSONResponse({"id": workspace.id, "deleted": False})


async def rename_workspace(request: Request) -> Response:
    """Rename a workspace; the name is taken as it is."""
    workspace = present_workspace(request, request.path_params["workspace_id"])
    workspace.name = text_field(await json_body(request), "name")
    workspace.updated_at = sandbox_of(request).clock.now()
    return JSONResponse({"id": workspace.id, "name": workspace.name})


def present_workspace(request: Request, workspace_id: int) -> Workspace:
    """A workspace that exists. Raises NotFoundError."""
    workspace = sandbox_of(request).workspaces.get(workspace_id)
    if workspace is None:
        raise NotFoundError
    return workspace


def _instant(text: object) -> datetime:
    message = "The now field must be an ISO instant with its offset, or null."
    try:
        instant = datetime.fromisoformat(str(text))
    except ValueError as error:
        raise InvalidError({"now": [message]}) from error
    if instant.tzinfo is None:
        raise InvalidError({"now": [message]})
    return instant
