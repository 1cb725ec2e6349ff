"""`GET /year?year=2026`: the positive replies of each client in each month of a year."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kpi_pipeline.dashboard.look_back import EARLIEST
from kpi_pipeline.dashboard.marks import not_finite
from kpi_pipeline.dashboard.paging import paging
from kpi_pipeline.dashboard.site import site
from kpi_pipeline.db.dashboard.history import MonthOfClient, read_first_date, read_year
from kpi_pipeline.domain.calendar import days_in_month

_REACHED, _CLOSE = 100, 80


@dataclass(frozen=True)
class YearCell:
    """A client's month, or a sum of them.

    `positive_replies` is None without a row, or where the row lacks the number. `progress` is in
    percent of the target. A month that is not final counts `until` its last row.
    """

    positive_replies: int | None
    target: int | None
    progress: Decimal | None
    until: date | None = None
    why: str = ""

    @property
    def shade(self) -> str:
        """The class of the cell: how much of its target a final month reached."""
        if self.progress is None or self.until is not None:
            return ""
        if self.progress >= _REACHED:
            return "reached"
        return "close" if self.progress >= _CLOSE else "short"


@dataclass(frozen=True)
class YearLine:
    """One client's year: a cell for each month, and their sum."""

    workspace: str
    label: str
    active: bool
    cells: Sequence[YearCell]
    total: YearCell


@dataclass(frozen=True)
class Year:
    """The table of a year, with a sum of all clients for each month."""

    year: int
    months: Sequence[date]
    lines: Sequence[YearLine]
    totals: Sequence[YearCell]
    total: YearCell


def year_page(request: Request) -> Response:
    """The table of one year."""
    of = site(request)
    today = of.today()
    wanted = _year(request.query_params.get("year", ""), today)
    first, last = date(wanted, 1, 1), min(today, date(wanted, 12, 31))
    with of.engine.connect() as connection:
        found = read_year(connection, first, last)
        earliest = read_first_date(connection) or today
    page = year_of(wanted, found, today)
    return of.render(
        request,
        "year.html",
        page=page,
        paging=paging(request, "/year", len(page.lines)),
        before=wanted - 1 if wanted > earliest.year else None,
        after=wanted + 1 if wanted < today.year else None,
    )


def year_of(year: int, found: Sequence[MonthOfClient], today: date) -> Year:
    """The table of a year's last rows of each month; inactive clients need a row to be in it."""
    by_client: dict[str, list[MonthOfClient]] = {}
    for it in found:
        by_client.setdefault(it.workspace, []).append(it)
    lines = []
    for workspace, months in by_client.items():
        if not months[0].active and all(it.last_date is None for it in months):
            continue
        cells = [_cell(it, today) for it in months] + [_FUTURE] * (12 - len(months))
        lines.append(YearLine(workspace, months[0].label, months[0].active, cells, sum_of(cells)))
    columns = zip(*(line.cells for line in lines), strict=True) if lines else [()] * 12
    return Year(
        year,
        [date(year, number, 1) for number in range(1, 13)],
        lines,
        [sum_of(cells) for cells in columns],
        sum_of(cell for line in lines for cell in line.cells),
    )


def sum_of(cells: Iterable[YearCell]) -> YearCell:
    """The sum of the known cells; its percent is that of those with a target above 0."""
    known = [it for it in cells if it.positive_replies is not None]
    if not known:
        return YearCell(None, None, None, why="no month with numbers")
    replies = sum(it.positive_replies or 0 for it in known)
    targeted = [it for it in known if it.target]
    target = sum(it.target or 0 for it in targeted)
    reached = sum(it.positive_replies or 0 for it in targeted)
    progress = Decimal(reached * 100) / target if target > 0 else None
    until = max((it.until for it in known if it.until), default=None)
    return YearCell(replies, target or None, progress, until)


_FUTURE = YearCell(None, None, None, why="this month has not begun")


def _cell(month: MonthOfClient, today: date) -> YearCell:
    if month.last_date is None:
        return YearCell(None, None, None, why="no row in this month")
    last = month.last_date
    is_final = last.day == days_in_month(last) and last < today
    why = "" if month.positive_replies is not None else "a day of this month was never fetched"
    until = None if is_final else month.last_date
    progress = None if not_finite(month.progress) else month.progress
    return YearCell(month.positive_replies, month.target, progress, until, why)


def _year(text: str, today: date) -> int:
    if not text:
        return today.year
    if not re.fullmatch(r"[0-9]{4}", text):
        raise HTTPException(400, "That is no year: write ?year=2026.")
    if not EARLIEST.year <= int(text) <= today.year:
        raise HTTPException(400, f"There are no numbers of {text}.")
    return int(text)


ROUTES = [Route("/year", year_page)]
