"""The day that a page shows, and the links from it to other days and months.

`?date=2026-11-03` shows that day, `?month=2026-10` the last day of a month, and an address without
either shows today. Templates draw the links with the macro of `_look_back.html`.
"""

import re
from dataclasses import dataclass
from datetime import date, timedelta
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request

from kpi_pipeline.domain.calendar import days_in_month, first_of_month, first_of_previous_month

_ONE_DAY = timedelta(days=1)
# No client has rows of earlier days; the windows of a row reach two months back from its date.
EARLIEST = date(2000, 3, 1)
# `since` is the version of the data that an open page has: no part of what the page shows.
_MINE = frozenset({"date", "month", "since"})


@dataclass(frozen=True)
class Month:
    """A month of the picker: its first day, and its address unless it is in the future."""

    first: date
    url: str | None
    shown: bool


@dataclass(frozen=True)
class LookBack:
    """The day that a page at `path` shows.

    `kept` are the other parameters of the address, which its links keep.
    """

    path: str
    day: date
    today: date
    kept: tuple[tuple[str, str], ...] = ()

    @property
    def is_today(self) -> bool:
        """Whether the day is the current business date."""
        return self.day == self.today

    @property
    def month_is_over(self) -> bool:
        """Whether the month of the day is past."""
        return first_of_month(self.day) < first_of_month(self.today)

    @property
    def shows_month(self) -> bool:
        """Whether the page shows a month: to date, or a past one at its last day."""
        return self.is_today or (self.month_is_over and self.day.day == days_in_month(self.day))

    @property
    def parameters(self) -> tuple[tuple[str, str], ...]:
        """What the address of another page needs to show the same day: nothing for today."""
        if self.is_today:
            return ()
        if self.shows_month:
            return (("month", f"{self.day:%Y-%m}"),)
        return (("date", f"{self.day}"),)

    @property
    def query(self) -> str:
        """The same as the end of an address: "?month=2026-10", or nothing for today."""
        return f"?{urlencode(self.parameters)}" if self.parameters else ""

    def url(self, day: date) -> str:
        """The address of this page with another day, without the prefix of the site."""
        other = LookBack(self.path, day, self.today)
        query = urlencode([*self.kept, *other.parameters])
        return f"{self.path}?{query}" if query else self.path

    def month_url(self, day: date) -> str | None:
        """The address of this page with the month of a day; None where it has none."""
        first = first_of_month(day)
        if not EARLIEST <= first <= self.today:
            return None
        return self.url(min(self.today, first.replace(day=days_in_month(first))))

    @property
    def before(self) -> str | None:
        """The address of the month before."""
        return self.month_url(first_of_previous_month(self.day))

    @property
    def after(self) -> str | None:
        """The address of the next month; None in the current one."""
        return self.month_url(first_of_month(self.day) + days_in_month(self.day) * _ONE_DAY)

    @property
    def months(self) -> list[Month]:
        """The months of the year that is shown."""
        firsts = [date(self.day.year, number, 1) for number in range(1, 13)]
        shown = first_of_month(self.day)
        return [Month(it, self.month_url(it), it == shown) for it in firsts]

    def year_url(self, year: int) -> str | None:
        """The address of this page with the last month of a year that is not in the future."""
        return (
            self.month_url(min(date(year, 12, 1), self.today)) if year <= self.today.year else None
        )


def look_back(request: Request, path: str, today: date) -> LookBack:
    """What the parameters of a request ask to be shown.

    Raises:
        HTTPException: 400 for a day or month that is in the future, or none at all.
    """
    parameters = request.query_params
    kept = tuple((name, text) for name, text in parameters.multi_items() if name not in _MINE)
    if text := parameters.get("date", ""):
        day = _day(text)
    elif text := parameters.get("month", ""):
        first = _day(f"{text}-01")
        day = first.replace(day=days_in_month(first))
        if first_of_month(today) == first:
            day = today
    else:
        day = today
    if day > today:
        raise HTTPException(400, f"{text} is in the future: the last day with numbers is {today}.")
    if day < EARLIEST:
        raise HTTPException(400, f"There are no numbers of {text}.")
    return LookBack(path, day, today, kept)


def _day(text: str) -> date:
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        try:
            return date.fromisoformat(text)
        except ValueError:
            pass
    raise HTTPException(
        400, "That is no day: write ?date=2026-11-03, or ?month=2026-11 for a month."
    )
