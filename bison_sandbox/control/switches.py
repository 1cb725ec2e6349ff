"""Switches of faults, variants, API keys, and of the user whose workspace the master key uses."""

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bison_sandbox.control.agency import present_workspace
from bison_sandbox.faults import fault_from
from bison_sandbox.requests import (
    InvalidError,
    NotFoundError,
    integer_field,
    json_body,
    json_object,
)
from bison_sandbox.state import sandbox_of
from bison_sandbox.variants import Variants


def routes() -> list[BaseRoute]:
    """The endpoints of this file."""
    return [
        Route("/sandbox/faults", show_faults, methods=["GET"]),
        Route("/sandbox/faults", add_fault, methods=["POST"]),
        Route("/sandbox/faults", remove_faults, methods=["DELETE"]),
        Route("/sandbox/faults/{fault_id:int}", remove_fault, methods=["DELETE"]),
        Route("/sandbox/variants", show_variants, methods=["GET"]),
        Route("/sandbox/variants", change_variants, methods=["PATCH"]),
        Route("/sandbox/variants", reset_variants, methods=["DELETE"]),
        Route("/sandbox/keys/revoke", revoke_keys, methods=["POST"]),
        Route("/sandbox/keys/restore", restore_keys, methods=["POST"]),
        Route("/sandbox/keys/move", move_key, methods=["POST"]),
        Route("/sandbox/ui-user", show_user, methods=["GET"]),
        Route("/sandbox/ui-user", switch_user, methods=["POST"]),
    ]


async def show_faults(request: Request) -> Response:
    """All faults, as they were given, and how many calls each has struck."""
    faults = [
        {"id": active.id, **active.fault.as_json(), "struck": active.struck}
        for active in sandbox_of(request).faults.all()
    ]
    return JSONResponse({"faults": faults})


async def add_fault(request: Request) -> Response:
    """Put a fault in force; answers 201."""
    active = sandbox_of(request).add_fault(fault_from(await json_object(request)))
    return JSONResponse({"id": active.id}, 201)


async def remove_fault(request: Request) -> Response:
    """Remove one fault."""
    if not sandbox_of(request).faults.remove(request.path_params["fault_id"]):
        raise NotFoundError
    return Response(status_code=204)


async def remove_faults(request: Request) -> Response:
    """Remove all faults."""
    sandbox_of(request).faults.clear()
    return Response(status_code=204)


async def show_variants(request: Request) -> Response:
    """All variants, by name."""
    return JSONResponse(asdict(sandbox_of(request).variants))


async def change_variants(request: Request) -> Response:
    """Change the variants in the body, all of them or none; show all."""
    sandbox = sandbox_of(request)
    sandbox.variants = sandbox.variants.changed(await json_object(request))
    return await show_variants(request)


async def reset_variants(request: Request) -> Response:
    """Reset every variant to its default; show all."""
    sandbox_of(request).variants = Variants()
    return await show_variants(request)


async def revoke_keys(request: Request) -> Response:
    """Revoke every API key of a workspace: it answers 401."""
    return await _set_revoked(request, revoked=True)


async def restore_keys(request: Request) -> Response:
    """Restore a workspace's revoked API keys."""
    return await _set_revoked(request, revoked=False)


async def move_key(request: Request) -> Response:
    """Make the API key listed for one workspace a key of another, as if copied from there."""
    body = await json_body(request)
    listed = present_workspace(request, integer_field(body, "workspace_id"))
    to = present_workspace(request, integer_field(body, "to"))
    if listed.own_key is None:
        sentence = "The selected workspace id is invalid: no API key is listed for it."
        raise InvalidError({"workspace_id": [sentence]})
    listed.own_key.workspace_id = to.id
    return JSONResponse({"workspace_id": listed.id, "to": to.id})


async def show_user(request: Request) -> Response:
    """The user's current workspace, in which the master key acts."""
    return JSONResponse({"workspace_id": sandbox_of(request).user.current_workspace_id})


async def switch_user(request: Request) -> Response:
    """Move the user to another workspace at once, as a switch in the vendor's own pages does."""
    workspace = present_workspace(request, integer_field(await json_body(request), "workspace_id"))
    sandbox_of(request).user.switch(workspace.id)
    return JSONResponse({"workspace_id": workspace.id})


async def _set_revoked(request: Request, *, revoked: bool) -> Response:
    workspace = present_workspace(request, integer_field(await json_body(request), "workspace_id"))
    keys = sandbox_of(request).keys.set_revoked(workspace.id, revoked)
    return JSONResponse({"workspace_id": workspace.id, "keys": keys})
