"""The endpoints of Email Bison, one file a topic, behind one gate."""

from starlette.routing import BaseRoute

from kpi_pipeline.sandbox.api import campaigns, replies, statistics, users, webhooks, workspaces


def routes() -> list[BaseRoute]:
    """All endpoints under /api."""
    return [
        *users.routes(),
        *workspaces.routes(),
        *statistics.routes(),
        *campaigns.routes(),
        *webhooks.routes(),
        *replies.routes(),
    ]
