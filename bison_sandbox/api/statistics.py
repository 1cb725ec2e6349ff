"""Endpoints of counts: totals of a period, and the daily series."""

from collections.abc import Callable, Sequence
from datetime import date, timedelta

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from bison_sandbox.api.answers import answer
from bison_sandbox.api.gate import acting_workspace
from bison_sandbox.event_bodies import SENDERS
from bison_sandbox.requests import InvalidError, period
from bison_sandbox.state import sandbox_of
from bison_sandbox.world.numbers import NOTHING, Day, total
from bison_sandbox.world.workspaces import split

_BASE = "/api/workspaces/v1.1"
_MAILS_A_LEAD = 2.4
_LINES = (
    ("Replied", "#8b5cf6", "replied"),
    ("Total Opens", "#f59e0b", "total_opens"),
    ("Sent", "#3b82f6", "sent"),
    ("Unsubscribed", "#ef4444", "unsubscribed"),
    ("Bounced", "#78716c", "bounced"),
    ("Interested", "#22c55e", "interested"),
    ("Unique Opens", "#eab308", "unique_opens"),
)
"""Label in the vendor's order, colour, and the count that it shows."""

_SHUFFLED = (5, 2, 6, 0, 1, 4, 3)
_UNKNOWN_LINE = ("Auto Replies", "#0ea5e9", "replied")
_UNKNOWN_MORE = 3
"""Added to each day's replies, so the unknown line has no zero."""


def routes() -> list[BaseRoute]:
    """The endpoints of this file."""
    return [
        Route(f"{_BASE}/stats", show_stats, methods=["GET"]),
        Route(f"{_BASE}/line-area-chart-stats", show_series, methods=["GET"]),
        Route("/api/campaign-events/stats", show_series_of_campaigns, methods=["GET"]),
    ]


async def show_stats(request: Request) -> Response:
    """Totals of the period, as texts as in the vendor's document, or as integers.

    Replies are of people here: one who writes twice in the period counts once.
    """
    sandbox, workspace = sandbox_of(request), acting_workspace(request)
    first, last = period(request)
    counts = total(sandbox.series(workspace, first, last))
    people = sandbox.replies.people(workspace.profile, first, last, sandbox.clock.now())
    as_integers = sandbox.variants.counts == "integers"
    return answer(request, _stats(counts, people, int if as_integers else str))


async def show_series(request: Request) -> Response:
    """One line per label, with a point for each day of the period; a day without mail is a zero.

    Variants change the lines, leave out days, or make the counts texts.
    """
    workspace = acting_workspace(request)
    first, last = period(request)
    return _lines_answer(request, first, sandbox_of(request).series(workspace, first, last))


async def show_series_of_campaigns(request: Request) -> Response:
    """The same lines for some campaigns or mailboxes of the workspace; for all without a choice."""
    sandbox, workspace = sandbox_of(request), acting_workspace(request)
    first, last = period(request)
    days = sandbox.series(workspace, first, last)
    campaigns = [campaign.id for campaign in sandbox.campaigns_of(workspace)]
    senders = [workspace.id * SENDERS + place for place in range(SENDERS)]
    for field, known in (("campaign_ids", campaigns), ("sender_email_ids", senders)):
        chosen = _ids(request, field)
        if chosen is not None:
            places = [place for place, each in enumerate(known) if each in chosen]
            days = [_part(day, places, len(known)) for day in days]
    return _lines_answer(request, first, days)


def _ids(request: Request, field: str) -> set[int] | None:
    """The ids of a query, as `field=1,2` or as `field[]=1&field[]=2`; None without any."""
    asked = request.query_params
    texts = [*asked.getlist(f"{field}[]"), *asked.getlist(field)]
    found = [text.strip() for each in texts for text in each.split(",") if text.strip()]
    if any(not (text.isascii() and text.isdigit()) for text in found):
        raise InvalidError({field: [f"The {field} field must hold integers."]})
    return {int(text) for text in found} if found else None


def _part(day: Day, places: Sequence[int], parts: int) -> Day:
    """The share that some of a number of campaigns or mailboxes have in a day's counts."""
    return Day(*(sum(split(count, parts)[place] for place in places) for count in day))


def _lines_answer(request: Request, first: date, days: Sequence[Day]) -> Response:
    variants = sandbox_of(request).variants
    as_count = str if variants.counts == "text" else int
    dates = [(first + timedelta(days=offset)).isoformat() for offset in range(len(days))]
    lines = []
    for label, color, count in _lines(variants.labels):
        more = _UNKNOWN_MORE if label == _UNKNOWN_LINE[0] else 0
        points = [
            [text, as_count(getattr(day, count) + more)]
            for text, day in zip(dates, days, strict=True)
            if not _is_left_out(variants.empty_days, day, getattr(day, count) + more)
        ]
        lines.append({"label": label, "color": color, "dates": points})
    return answer(request, lines)


def _lines(labels: str) -> list[tuple[str, str, str]]:
    match labels:
        case "shuffled":
            return [_LINES[place] for place in _SHUFFLED]
        case "one_missing":
            return [line for line in _LINES if line[0] != "Interested"]
        case "no_opens":
            return [line for line in _LINES if not line[0].endswith("Opens")]
        case "one_unknown":
            return [_UNKNOWN_LINE, *_LINES]
    return list(_LINES)


def _is_left_out(empty_days: str, day: Day, count: int) -> bool:
    match empty_days:
        case "omitted":
            return day == NOTHING
        case "omitted_by_label":
            return count == 0
    return False


def _stats(counts: Day, people: int, as_count: Callable[[int], int | str]) -> dict[str, int | str]:
    contacted = max(round(counts.sent / _MAILS_A_LEAD), counts.unique_opens, people)
    return {
        "emails_sent": as_count(counts.sent),
        "total_leads_contacted": as_count(contacted),
        "opened": as_count(counts.total_opens),
        "opened_percentage": _percentage(counts.total_opens, counts.sent),
        "unique_opens_per_contact": as_count(counts.unique_opens),
        "unique_opens_per_contact_percentage": _percentage(counts.unique_opens, contacted),
        "unique_replies_per_contact": as_count(people),
        "unique_replies_per_contact_percentage": _percentage(people, contacted),
        "bounced": as_count(counts.bounced),
        "bounced_percentage": _percentage(counts.bounced, counts.sent),
        "unsubscribed": as_count(counts.unsubscribed),
        "unsubscribed_percentage": _percentage(counts.unsubscribed, contacted),
        "interested": as_count(counts.interested),
        "interested_percentage": _percentage(counts.interested, contacted),
    }


def _percentage(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}" if whole else "0"
