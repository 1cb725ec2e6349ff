"""The endpoints of Email Bison, one file a topic, behind one gate."""

from starlette.routing import BaseRoute

from bison_sandbox.api import campaigns, statistics, webhooks, workspaces


def routes() -> list[BaseRoute]:
    """All endpoints under /api."""
    return [
        *workspaces.routes(),
        *statistics.routes(),
        *campaigns.routes(),
        *webhooks.routes(),
    ]
