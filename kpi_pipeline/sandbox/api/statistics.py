from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from kpi_pipeline.sandbox.api.answers import answer
from kpi_pipeline.sandbox.api.gate import acting_workspace
from kpi_pipeline.sandbox.numbers import Day, total
from kpi_pipeline.sandbox.requests import period
from kpi_pipeline.sandbox.state import sandbox_of

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
"""Labels in the vendor's order, with a colour each."""


def routes() -> list[BaseRoute]:
    """The counts of a period: as one sum, and day by day."""
    return [
        Route(f"{_BASE}/stats", show_stats, methods=["GET"]),
        Route(f"{_BASE}/line-area-chart-stats", show_series, methods=["GET"]),
    ]


async def show_stats(request: Request) -> Response:
    """Sums over the period, each a text as in the vendor's document."""
    days, _ = _days(request)
    return answer(_stats(total(days)))


async def show_series(request: Request) -> Response:
    """One line a label, with a point for each day of the period; a day without mail is a zero."""
    days, dates = _days(request)
    return answer(
        [
            {
                "label": label,
                "color": color,
                "dates": [
                    [text, getattr(day, count)] for text, day in zip(dates, days, strict=True)
                ],
            }
            for label, color, count in _LINES
        ]
    )


def _days(request: Request) -> tuple[list[Day], list[str]]:
    sandbox = sandbox_of(request)
    workspace = acting_workspace(request)
    first, last = period(request)
    days = sandbox.numbers.series(workspace.profile, first, last, sandbox.clock.now())
    dates = [(first + timedelta(days=offset)).isoformat() for offset in range(len(days))]
    return days, dates


def _stats(counts: Day) -> dict[str, str]:
    contacted = max(round(counts.sent / _MAILS_A_LEAD), counts.unique_opens, counts.replied)
    return {
        "emails_sent": str(counts.sent),
        "total_leads_contacted": str(contacted),
        "opened": str(counts.total_opens),
        "opened_percentage": _percentage(counts.total_opens, counts.sent),
        "unique_opens_per_contact": str(counts.unique_opens),
        "unique_opens_per_contact_percentage": _percentage(counts.unique_opens, contacted),
        "unique_replies_per_contact": str(counts.replied),
        "unique_replies_per_contact_percentage": _percentage(counts.replied, contacted),
        "bounced": str(counts.bounced),
        "bounced_percentage": _percentage(counts.bounced, counts.sent),
        "unsubscribed": str(counts.unsubscribed),
        "unsubscribed_percentage": _percentage(counts.unsubscribed, contacted),
        "interested": str(counts.interested),
        "interested_percentage": _percentage(counts.interested, contacted),
    }


def _percentage(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}" if whole else "0"
