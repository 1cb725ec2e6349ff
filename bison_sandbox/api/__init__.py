"""The endpoints of Email Bison, one file per topic."""

from starlette.routing import BaseRoute

from bison_sandbox.api import campaigns, events, statistics, webhooks, workspaces


def routes() -> list[BaseRoute]:
    """All endpoints under /api."""
    return [
        *workspaces.routes(),
        *statistics.routes(),
        *campaigns.routes(),
        *webhooks.routes(),
        *events.routes(),
    ]
