"""Endpoints of sending schedules and replies."""

from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from bison_sandbox.api.answers import answer, list_answer, text
from bison_sandbox.api.gate import acting_workspace
from bison_sandbox.requests import ApiError, InvalidError, json_body
from bison_sandbox.state import sandbox_of
from bison_sandbox.world.replies import Reply, reply_row
from bison_sandbox.world.workspaces import campaigns_of

_DAYS = {"today": 0, "tomorrow": 1, "day_after_tomorrow": 2}
_ACTIVE = 2


def routes() -> list[BaseRoute]:
    """The endpoints of this file."""
    return [
        Route("/api/campaigns/sending-schedules", show_schedules, methods=["GET"]),
        Route("/api/replies", list_replies, methods=["GET"]),
    ]


async def show_schedules(request: Request) -> Response:
    """Mails planned for today or one of the next two days, one row per campaign.

    `day` is in the JSON body, as the vendor's document says, or in the query, which works live,
    too. A day without a plan, such as a weekend, is a 400, observed live, or an empty list.
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
    if not mails and sandbox.variants.empty_plan == "list":
        return answer(request, [])
    if not mails:
        raise ApiError(400, "No emails scheduled for this period")
    campaigns = campaigns_of(sandbox.seed, workspace.id)
    shares = _shares(mails, len(campaigns))
    as_text = sandbox.variants.counts == "text"
    return answer(
        request,
        [
            {
                "emails_being_sent": str(share) if as_text else share,
                "campaign_id": campaign.id,
                "campaign": {"id": campaign.id, "name": campaign.name, "status": _ACTIVE},
            }
            for campaign, share in zip(campaigns, shares, strict=True)
        ],
    )


def _shares(mails: int, campaigns: int) -> list[int]:
    """The mails of a day, spread over campaigns, each with a smaller share than the one before."""
    weights = range(campaigns, 0, -1)
    shares = [mails * weight // sum(weights) for weight in weights]
    shares[0] += mails - sum(shares)
    return shares


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
