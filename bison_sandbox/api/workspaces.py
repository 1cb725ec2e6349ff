"""Endpoints of the user, the workspaces, and new API keys."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from bison_sandbox.api.answers import answer, list_answer, text
from bison_sandbox.api.gate import acting_workspace, require_master, visit_of
from bison_sandbox.requests import NotFoundError, integer_field, json_body, text_field
from bison_sandbox.state import sandbox_of
from bison_sandbox.world.clock import timestamp
from bison_sandbox.world.workspaces import Workspace


def routes() -> list[BaseRoute]:
    """The endpoints of this file."""
    return [
        Route("/api/users", show_user, methods=["GET"]),
        Route(_BASE, list_workspaces, methods=["GET"]),
        Route(f"{_BASE}/switch-workspace", switch_workspace, methods=["POST"]),
        Route(f"{_BASE}/{{team_id:int}}/api-tokens", create_token, methods=["POST"]),
    ]


async def show_user(request: Request) -> Response:
    """The user, with the workspace that the API key acts in, and with its secret, as live.

    How that member is called is a variant.
    """
    sandbox = sandbox_of(request)
    user, workspace = sandbox.user, acting_workspace(request)
    acting = workspace_row(request, workspace) | {
        "warmup_filter_phrase": f"quill-{workspace.id}",
        "webhooks_secret_key": sandbox.keys.webhook_secret(workspace.id),
    }
    # In an agency of one workspace, the other one has an id that does not exist.
    others = [each for each in sandbox.workspaces.present() if each is not workspace]
    other = workspace_row(request, others[0]) if others else acting | {"id": workspace.id + 1}
    members = {
        "workspace": {"workspace": acting},
        "team": {"team": acting},
        "both": {"workspace": acting, "team": acting},
        "different": {"workspace": acting, "team": other},
    }
    created_at = timestamp(workspace.created_at)
    return answer(
        request,
        {
            "id": user.id,
            "name": text(request, user.name, user.id),
            "email": user.email,
            **members[sandbox.variants.user_member],
            "profile_photo_path": None,
            "profile_photo_url": "https://photos.example/avery",
            "created_at": created_at,
            "updated_at": created_at,
        },
    )


_BASE = "/api/workspaces/v1.1"


async def list_workspaces(request: Request) -> Response:
    """All workspaces for a master key, its own one for a workspace key."""
    if visit_of(request).with_master_key:
        workspaces = sandbox_of(request).workspaces.present()
    else:
        workspaces = [acting_workspace(request)]

    def rows(start: int, stop: int) -> list[dict[str, object]]:
        return [workspace_row(request, workspace) for workspace in workspaces[start:stop]]

    return list_answer(request, len(workspaces), rows)


async def switch_workspace(request: Request) -> Response:
    """Move the user, and so the master key, to another workspace. The answer has no id."""
    require_master(request)
    sandbox = sandbox_of(request)
    team_id = integer_field(await json_body(request), "team_id")
    workspace = sandbox.workspaces.get(team_id)
    if workspace is None:
        raise NotFoundError
    sandbox.user.switch(workspace.id, sandbox.variants.switch_seconds)
    visit_of(request).call.workspace_id = workspace.id
    return answer(request, {"name": text(request, workspace.name, workspace.id)})


async def create_token(request: Request) -> Response:
    """Create a workspace key; only this answer ever shows its secret."""
    require_master(request)
    sandbox = sandbox_of(request)
    workspace = sandbox.workspaces.get(request.path_params["team_id"])
    if workspace is None:
        raise NotFoundError
    name = text_field(await json_body(request), "name")
    key = sandbox.keys.issue(workspace.id, name, sandbox.clock.now())
    visit_of(request).call.workspace_id = workspace.id
    created_at = timestamp(key.created_at)
    return answer(
        request,
        {
            "id": key.id,
            "name": key.name,
            "plain_text_token": key.token,
            "token_hash": key.token_hash,
            "abilities": ["api-user"],
            "created_at": created_at,
            "updated_at": created_at,
        },
    )


def workspace_row(request: Request, workspace: Workspace) -> dict[str, object]:
    """A workspace as the vendor's answers show it."""
    return {
        "id": workspace.id,
        "name": text(request, workspace.name, workspace.id),
        "personal_team": False,
        "main": False,
        "parent_id": None,
        "created_at": timestamp(workspace.created_at),
        "updated_at": timestamp(workspace.updated_at),
    }
