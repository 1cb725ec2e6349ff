"""Who may act where: the keys, and the user whom the master key follows."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from kpi_pipeline.sandbox.control.agency import present_workspace
from kpi_pipeline.sandbox.errors import InvalidError
from kpi_pipeline.sandbox.requests import integer_field, json_body
from kpi_pipeline.sandbox.state import sandbox_of


def routes() -> list[BaseRoute]:
    """Keys revoked, restored and mixed up, and the user in the vendor's own pages."""
    return [
        Route("/sandbox/keys/revoke", revoke_keys, methods=["POST"]),
        Route("/sandbox/keys/restore", restore_keys, methods=["POST"]),
        Route("/sandbox/keys/move", move_key, methods=["POST"]),
        Route("/sandbox/ui-user", show_user, methods=["GET"]),
        Route("/sandbox/ui-user", switch_user, methods=["POST"]),
    ]


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
