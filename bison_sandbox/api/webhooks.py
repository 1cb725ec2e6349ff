"""Endpoints of webhooks."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from bison_sandbox.api.answers import answer, list_answer
from bison_sandbox.api.gate import acting_workspace
from bison_sandbox.requests import (
    ForbiddenError,
    InvalidError,
    NotFoundError,
    base_url,
    is_url,
    json_body,
)
from bison_sandbox.state import sandbox_of
from bison_sandbox.webhooks import WebhookUrl, are_types
from bison_sandbox.world.clock import timestamp


def routes() -> list[BaseRoute]:
    """The endpoints of this file."""
    one = "/api/webhook-url/{hook_id:int}"
    return [
        Route("/api/webhook-url", list_webhooks, methods=["GET"]),
        Route("/api/webhook-url", create_webhook, methods=["POST"]),
        Route(one, show_webhook, methods=["GET"]),
        Route(one, replace_webhook, methods=["PUT"]),
        Route(one, delete_webhook, methods=["DELETE"]),
    ]


async def list_webhooks(request: Request) -> Response:
    """The webhooks of the workspace that the call acts in."""
    workspace = acting_workspace(request)
    hooks = sandbox_of(request).webhook_urls.of(workspace.id)

    def rows(start: int, stop: int) -> list[dict[str, object]]:
        return [_row(hook) for hook in hooks[start:stop]]

    return list_answer(request, len(hooks), rows)


async def create_webhook(request: Request) -> Response:
    """Register a webhook; answers 201."""
    sandbox = sandbox_of(request)
    workspace = acting_workspace(request)
    name, url, events = await _fields(request)
    sandbox.url = base_url(request)
    hook = sandbox.webhook_urls.add(workspace.id, name, url, events, sandbox.clock.now())
    return answer(request, _row(hook), 201)


async def show_webhook(request: Request) -> Response:
    """Show one of the workspace's own webhooks."""
    return answer(request, _row(_own(request)))


async def replace_webhook(request: Request) -> Response:
    """Replace name, address and all event types."""
    hook = _own(request)
    hook.name, hook.url, hook.events = await _fields(request)
    hook.updated_at = sandbox_of(request).clock.now()
    return answer(request, _row(hook))


async def delete_webhook(request: Request) -> Response:
    """Delete one of the workspace's own webhooks."""
    sandbox_of(request).webhook_urls.remove(_own(request).id)
    return answer(request, {"success": True, "message": "Webhook URL deleted."})


def _own(request: Request) -> WebhookUrl:
    workspace = acting_workspace(request)
    hook = sandbox_of(request).webhook_urls.get(request.path_params["hook_id"])
    if hook is None:
        raise NotFoundError
    if hook.workspace_id != workspace.id:
        raise ForbiddenError
    return hook


async def _fields(request: Request) -> tuple[str, str, list[str]]:
    body = await json_body(request)
    name, url, events = body.get("name"), body.get("url"), body.get("events")
    errors = {
        field: [f"The {field} field is required."]
        for field in ("name", "url", "events")
        if not body.get(field)
    }
    if "name" not in errors and not isinstance(name, str):
        errors["name"] = ["The name field must be a string."]
    if "url" not in errors and not is_url(str(url)):
        errors["url"] = ["The url field must be a valid URL."]
    if "events" not in errors and not are_types(events):
        errors["events"] = ["The selected events are invalid."]
    if errors or not are_types(events):
        raise InvalidError(errors)
    return str(name), str(url), events


def _row(hook: WebhookUrl) -> dict[str, object]:
    return {
        "id": hook.id,
        "name": hook.name,
        "url": hook.url,
        "events": hook.events,
        "created_at": timestamp(hook.created_at),
        "updated_at": timestamp(hook.updated_at),
    }
