"""Who may act where: the keys, and the user whom the master key follows."""

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
    """The faults in force, as they were given, and how often each has struck."""
    faults = [
        {"id": standing.id, **standing.fault.told(), "struck": standing.struck}
        for standing in sandbox_of(request).faults.all()
    ]
    return JSONResponse({"faults": faults})


async def add_fault(request: Request) -> Response:
    """Put a fault in force; answers 201."""
    standing = sandbox_of(request).add_fault(fault_from(await json_object(request)))
    return JSONResponse({"id": standing.id}, 201)


async def remove_fault(request: Request) -> Response:
    """Take one fault out of force."""
    if not sandbox_of(request).faults.remove(request.path_params["fault_id"]):
        raise NotFoundError
    return Response(status_code=204)


async def remove_faults(request: Request) -> Response:
    """Take all faults out of force."""
    sandbox_of(request).faults.clear()
    return Response(status_code=204)


async def show_variants(request: Request) -> Response:
    """All variants, by name."""
    return JSONResponse(asdict(sandbox_of(request).variants))


async def change_variants(request: Request) -> Response:
    """Change the variants that the body names, all of them or none; shows all."""
    sandbox = sandbox_of(request)
    sandbox.variants = sandbox.variants.changed(await json_object(request))
    return await show_variants(request)


async def reset_variants(request: Request) -> Response:
    """Take every variant back to its default; shows all."""
    sandbox_of(request).variants = Variants()
    return await show_variants(request)


async def revoke_keys(request: Request) -> Response:
    """Make every key that a workspace has now answer 401."""
    return await _set_revoked(request, revoked=True)


async def restore_keys(request: Request) -> Response:
    """Make a workspace's revoked keys work again."""
    return await _set_revoked(request, revoked=False)


async def move_key(request: Request) -> Response:
    """Make the key noted down for one workspace a key of another, as if copied from there."""
    body = await json_body(request)
    noted = present_workspace(request, integer_field(body, "workspace_id"))
    to = present_workspace(request, integer_field(body, "to"))
    if noted.own_key is None:
        sentence = "The selected workspace id is invalid: no key is noted down for it."
        raise InvalidError({"workspace_id": [sentence]})
    noted.own_key.workspace_id = to.id
    return JSONResponse({"workspace_id": noted.id, "to": to.id})


async def show_user(request: Request) -> Response:
    """Where the user is, and with it the master key."""
    return JSONResponse({"workspace_id": sandbox_of(request).user.current_workspace_id})


async def switch_user(request: Request) -> Response:
    """Move the user to another workspace, at once: somebody did so in the vendor's own pages."""
    workspace = present_workspace(request, integer_field(await json_body(request), "workspace_id"))
    sandbox_of(request).user.switch(workspace.id)
    return JSONResponse({"workspace_id": workspace.id})


async def _set_revoked(request: Request, *, revoked: bool) -> Response:
    workspace = present_workspace(request, integer_field(await json_body(request), "workspace_id"))
    keys = sandbox_of(request).keys.set_revoked(workspace.id, revoked)
    return JSONResponse({"workspace_id": workspace.id, "keys": keys})
