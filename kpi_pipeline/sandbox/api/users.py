from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from kpi_pipeline.sandbox.api.answers import answer, text
from kpi_pipeline.sandbox.api.gate import acting_workspace
from kpi_pipeline.sandbox.api.workspaces import workspace_row
from kpi_pipeline.sandbox.state import sandbox_of


def routes() -> list[BaseRoute]:
    """Whose key this is, and where it acts."""
    return [Route("/api/users", show_user, methods=["GET"])]


async def show_user(request: Request) -> Response:
    """The user, with the workspace that the key acts in as `team`."""
    user = sandbox_of(request).user
    team = workspace_row(request, acting_workspace(request))
    name = text(request, user.name, user.id)
    return answer(request, {"id": user.id, "name": name, "email": user.email, "team": team})
