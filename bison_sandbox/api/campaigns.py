"""Endpoints of campaigns, sending schedules and replies."""

from datetime import timedelta
from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bison_sandbox.api.answers import list_answer, text
from bison_sandbox.api.gate import acting_workspace
from bison_sandbox.requests import ApiError, InvalidError, json_body
from bison_sandbox.state import sandbox_of
from bison_sandbox.world.clock import timestamp
from bison_sandbox.world.replies import Reply, reply_row
from bison_sandbox.world.workspaces import split

_DAYS = {"today": 0, "tomorrow": 1, "day_after_tomorrow": 2}
_ACTIVE = 2


def routes() -> list[BaseRoute]:
    """The endpoints of this file."""
    return [
        Route("/api/campaigns", list_campaigns, methods=["GET"]),
        Route("/api/campaigns/sending-schedules", show_schedules, methods=["GET"]),
        Route("/api/replies", list_replies, methods=["GET"]),
    ]


async def show_schedules(request: Request) -> Response:
    """Mails planned for today or one of the next two days, one row per campaign, in pages.

    `day` is in the JSON body, as the vendor's document says, or in the query, which works live,
    too. A day without a plan, such as a weekend, is a 400 or an empty list, both observed live,
    or another failure.
    """
    sandbox = sandbox_of(request)
    workspace = acting_workspace(request)
    asked = (await json_body(request)).get("day") or request.query_params.get("day")
    if not asked:
        raise InvalidError({"day": ["The day field is required."]})
    if not isinstance(asked, str) or asked not in _DAYS:
        raise InvalidError({"day": ["The selected day is invalid."]})
    today = sandbox.days_of(workspace.profile).date_of(sandbox.clock.now())
    day = today + timedelta(days=_DAYS[asked])
    mails = sandbox.numbers.planned(workspace.profile, day) if day.weekday() < 5 else 0
    if not mails and sandbox.variants.empty_plan != "list":
        return _no_plan(sandbox.variants.empty_plan)
    campaigns = sandbox.campaigns_of(workspace) if mails else []
    shares = split(mails, len(campaigns)) if mails else []
    as_text = sandbox.variants.counts == "text"

    def rows(start: int, stop: int) -> list[dict[str, object]]:
        return [
            {
                "emails_being_sent": str(share) if as_text else share,
                "campaign_id": campaign.id,
                "campaign": {"id": campaign.id, "name": campaign.name, "status": _ACTIVE},
            }
            for campaign, share in list(zip(campaigns, shares, strict=True))[start:stop]
        ]

    return list_answer(request, len(campaigns), rows)


def _no_plan(variant: str) -> Response:
    """The answer to a day without a plan. Raises ApiError where that is an error."""
    message = "No emails scheduled for this period"
    if variant == "success_false":
        return JSONResponse({"data": {"success": False, "message": message}})
    if variant == "422":
        raise InvalidError({"day": [message]})
    raise ApiError(int(variant), message)


async def list_campaigns(request: Request) -> Response:
    """The campaigns of the workspace that the call acts in."""
    workspace = acting_workspace(request)
    campaigns = sandbox_of(request).campaigns_of(workspace)
    created_at = timestamp(workspace.created_at)

    def rows(start: int, stop: int) -> list[dict[str, object]]:
        return [
            {
                "id": campaign.id,
                "uuid": str(UUID(int=campaign.id, version=4)),
                "name": text(request, campaign.name, campaign.id),
                "type": "outbound",
                "status": "active",
                "created_at": created_at,
                "updated_at": created_at,
            }
            for campaign in campaigns[start:stop]
        ]

    return list_answer(request, len(campaigns), rows)


_FOLDERS_WITH_ALL = ("", "all", "inbox")


async def list_replies(request: Request) -> Response:
    """Replies of the last 60 days, newest first; all of them are in the inbox.

    There is no filter by date: parameters other than `status`, `folder` and those of paging are
    ignored silently, as live.
    """
    sandbox = sandbox_of(request)
    profile = acting_workspace(request).profile
    now = sandbox.clock.now()
    only_interested = request.query_params.get("status") == "interested"
    total = 0
    if request.query_params.get("folder", "") in _FOLDERS_WITH_ALL:
        total = sandbox.replies.count(profile, now, only_interested=only_interested)

    def rows(start: int, stop: int) -> list[dict[str, object]]:
        replies = sandbox.replies.newest(profile, now, start, stop, only_interested=only_interested)
        return [_row(request, reply) for reply in replies]

    return list_answer(request, total, rows)


def _row(request: Request, reply: Reply) -> dict[str, object]:
    return reply_row(reply, lambda value: text(request, value, reply.id))
