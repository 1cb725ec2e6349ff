from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from kpi_pipeline.sandbox.api.answers import text
from kpi_pipeline.sandbox.api.gate import acting_workspace
from kpi_pipeline.sandbox.api.pages import list_answer
from kpi_pipeline.sandbox.reply import Reply, reply_row
from kpi_pipeline.sandbox.state import sandbox_of

_FOLDERS_WITH_ALL = ("", "all", "inbox")


def routes() -> list[BaseRoute]:
    """The replies of the leads."""
    return [Route("/api/replies", list_replies, methods=["GET"])]


async def list_replies(request: Request) -> Response:
    """Replies of the last 60 days, newest first; all of them lie in the inbox.

    There is no filter of dates: parameters other than `status`, `folder` and those of paging are
    ignored in silence, as live.
    """
    sandbox = sandbox_of(request)
    profile = acting_workspace(request).profile
    now = sandbox.clock.now()
    only_interested = request.query_params.get("status") == "interested"
    total = 0
    if request.query_params.get("folder", "") in _FOLDERS_WITH_ALL:
        total = sandbox.correspondence.count(profile, now, only_interested=only_interested)

    def rows(start: int, stop: int) -> list[dict[str, object]]:
        replies = sandbox.correspondence.newest(
            profile, now, start, stop, only_interested=only_interested
        )
        return [_row(request, reply) for reply in replies]

    return list_answer(request, total, rows)


def _row(request: Request, reply: Reply) -> dict[str, object]:
    return reply_row(reply, lambda value: text(request, value, reply.id))
