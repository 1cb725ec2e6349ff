"""A client's month as a report to hand on: a page for A4, which browsers save as PDF, and CSV.

It holds the client's numbers alone: no problem of ours, no sync, no other client.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from kpi_pipeline.dashboard import client_view as view
from kpi_pipeline.dashboard.api.answers import csv_lines
from kpi_pipeline.dashboard.look_back import LookBack, look_back
from kpi_pipeline.dashboard.site import site
from kpi_pipeline.db.dashboard.client import ClientCard, Number, read_card, read_days
from kpi_pipeline.domain.calendar import days_between, first_of_month, first_of_previous_month

_ONE_DAY = timedelta(days=1)

# The columns of the report, and their headings.
_COLUMNS = {
    "emails_sent_today": "Emails sent",
    "positive_replies_today": "Positive replies",
    "emails_sent_mtd": "Emails sent, month to date",
    "all_replies_mtd": "Replies, month to date",
    "positive_replies_mtd": "Positive replies, month to date",
    "bounced_mtd": "Bounces, month to date",
}
_COUNTED = ("emails_sent_mtd", "all_replies_mtd", "positive_replies_mtd", "bounced_mtd")


@dataclass(frozen=True)
class Week:
    """What a week of the month brought: counts by column, None where a day of it is not known."""

    first: date
    last: date
    counts: Mapping[str, int | None]


@dataclass(frozen=True)
class Report:
    """The month of `look.day` until that day."""

    card: ClientCard
    look: LookBack
    numbers: Mapping[str, Number]
    last_month: Mapping[str, Number]
    month_before: date
    chart: Markup
    weeks: Sequence[Week]
    lines: Sequence[Sequence[object]]


def page(request: Request) -> Response:
    """GET /clients/{workspace}/report: one sheet of A4."""
    return site(request).render(request, "report/page.html", report=_read(request))


def table(request: Request) -> Response:
    """GET /clients/{workspace}/report.csv: a line for each day, with headings for people."""
    report = _read(request)
    lines = csv_lines(["Date", *_COLUMNS.values()], report.lines)
    month = f"{report.look.day:%Y-%m}"
    name = f"{report.card.workspace}_{month}.csv"
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "no-store",
    }
    return StreamingResponse(lines, headers=headers, media_type="text/csv; charset=utf-8")


def weeks(days: view.Days, first: date, last: date) -> Iterator[Week]:
    """The weeks from Monday to Sunday, cut at both ends of the period, which is within a month."""
    begin = first
    before: dict[str, Number] = dict.fromkeys(_COUNTED, 0)
    while begin <= last:
        end = min(last, begin + (6 - begin.weekday()) * _ONE_DAY)
        until = view.numbers_of(days.get(end))
        counts = {name: _difference(until[name], before[name]) for name in _COUNTED}
        yield Week(begin, end, counts)
        before, begin = until, end + _ONE_DAY


def _difference(until: Number, before: Number) -> int | None:
    return None if until is None or before is None else int(until) - int(before)


def _read(request: Request) -> Report:
    of = site(request)
    workspace = request.path_params["workspace"]
    look = look_back(request, request.url.path.removeprefix(of.path("")), of.today())
    first, before = first_of_month(look.day), first_of_previous_month(look.day)
    with of.engine.connect() as connection:
        card = read_card(connection, workspace, look.day)
        if card is None:
            raise HTTPException(404, f"There is no client {workspace}.")
        days = read_days(connection, workspace, before, look.day)
    by_day = {it: view.numbers_of(days.get(it)) for it in days_between(first, look.day)}
    return Report(
        card=card,
        look=look,
        numbers=by_day[look.day],
        last_month=view.numbers_of(days.get(first - _ONE_DAY)),
        month_before=before,
        chart=view.month_chart(days, look.day),
        weeks=list(weeks(days, first, look.day)),
        lines=[[day, *(row[name] for name in _COLUMNS)] for day, row in by_day.items()],
    )


ROUTES = [
    Route("/clients/{workspace}/report", page),
    Route("/clients/{workspace}/report.csv", table),
]
