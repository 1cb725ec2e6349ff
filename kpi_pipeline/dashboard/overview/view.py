"""What an address of the overview asks for: the day, filters, order, columns, layout and page.

The address holds all of it, so a link shows everybody the same page.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request

from kpi_pipeline.dashboard.look_back import LookBack, look_back
from kpi_pipeline.dashboard.overview.columns import COLUMNS, SHOWN, SORTABLE
from kpi_pipeline.domain.standing import Standing

PATH = "/"
# The filter for clients with an open problem, beside those by standing.
PROBLEM = "problem"
STATUSES = {it.replace(" ", "-"): it for it in Standing} | {PROBLEM: PROBLEM}
LAYOUTS = ("table", "cards")
# Each pair of bounds is of one rate.
RATES = {
    "reply": "reply_rate_mtd",
    "positive": "positive_rate_mtd",
    "bounce": "bounce_rate_mtd",
    "progress": "mtd_leads_progress",
}
_LONGEST_NAME = 100


@dataclass(frozen=True)
class View:
    """One view of the overview. It is equal to another that shows the same.

    `status` is one of STATUSES or empty, `q` a part of a name, `bounds` percentages such as
    ("bounce_min", 3.0), `sort` a key of SORTABLE or empty for the order by urgency, `cols` the
    columns in their order, and `page` counts from 1.
    """

    look: LookBack
    status: str = ""
    q: str = ""
    bounds: tuple[tuple[str, float], ...] = ()
    sort: str = ""
    descending: bool = False
    cols: tuple[str, ...] = SHOWN
    layout: str = LAYOUTS[0]
    page: int = 1

    @property
    def day(self) -> date:
        """The date of the rows that are shown."""
        return self.look.day

    @property
    def is_filtered(self) -> bool:
        """Whether clients may be left out."""
        return bool(self.status or self.q or self.bounds)

    def bound(self, name: str) -> str:
        """A bound as a form shows it."""
        return f"{value:g}" if (value := dict(self.bounds).get(name)) is not None else ""

    def parameters(self, *without: str) -> list[tuple[str, str]]:
        """The address's parameters, but for those of these names; what is usual is left out."""
        return [(name, text) for name, text in self._parameters() if name not in without]

    def query(self) -> str:
        """The same as a query string, without the question mark."""
        return urlencode(self.parameters(), safe=",")

    def url(self, **changed: Any) -> str:
        """The address of this view with other values; of its first page, unless `page` is given."""
        query = replace(self, **{"page": 1, **changed}).query()
        return f"{PATH}?{query}" if query else PATH

    def sorted_url(self, key: str) -> str:
        """The address of this view in the order of a column: large ones first, and then the other
        way round."""
        again = self.sort == key
        return self.url(sort=key, descending=not self.descending if again else key != "name")

    def _parameters(self) -> Iterator[tuple[str, str]]:
        yield from self.look.parameters
        if self.status:
            yield "status", self.status
        if self.q:
            yield "q", self.q
        yield from ((name, f"{value:g}") for name, value in self.bounds)
        if self.sort:
            yield "sort", f"-{self.sort}" if self.descending else self.sort
        if self.cols != SHOWN:
            yield "cols", ",".join(self.cols)
        if self.layout != LAYOUTS[0]:
            yield "view", self.layout
        if self.page > 1:
            yield "page", f"{self.page}"


def read_view(request: Request, today: date) -> View:
    """The view that a request asks for.

    Raises:
        HTTPException: 400 with a sentence, as a filter that were left out would mislead.
    """
    given = request.query_params
    view = View(
        look_back(request, PATH, today),
        status=_one_of(given, "status", STATUSES),
        q=given.get("q", "").strip()[:_LONGEST_NAME],
        bounds=tuple(_bounds(given)),
        sort=_one_of(given, "sort", SORTABLE, prefix="-"),
        descending=given.get("sort", "").startswith("-"),
        cols=_columns(given),
        layout=_one_of(given, "view", LAYOUTS) or LAYOUTS[0],
        page=_page(given),
    )
    # The links of the month picker keep what this view shows, and no more.
    kept = tuple(view.parameters("date", "month", "page"))
    return replace(view, look=replace(view.look, kept=kept))


def _one_of(given: QueryParams, name: str, known: Any, prefix: str = "") -> str:
    text = given.get(name, "").removeprefix(prefix)
    if text and text not in known:
        raise HTTPException(400, f"There is no {name}={text[:60]}. Use one of: {', '.join(known)}.")
    return text


def _bounds(given: QueryParams) -> Iterator[tuple[str, float]]:
    for rate in RATES:
        for name in (f"{rate}_min", f"{rate}_max"):
            if not (text := given.get(name, "").strip()):
                continue
            try:
                value = float(text.replace(",", "."))
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                raise HTTPException(400, f"{name} is a percentage, such as {name}=2.5.")
            yield name, value


def _columns(given: QueryParams) -> tuple[str, ...]:
    """The columns that are asked for, in the order of the catalog; those of the start if none."""
    asked = {key for text in given.getlist("cols") for key in text.split(",") if key}
    if unknown := sorted(asked - COLUMNS.keys()):
        raise HTTPException(400, f"There is no column {unknown[0][:60]!r}.")
    return tuple(key for key in COLUMNS if key in asked) or SHOWN


def _page(given: QueryParams) -> int:
    text = given.get("page", "") or "1"
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and int(text) > 0):
        raise HTTPException(400, "page is a number from 1 on.")
    return int(text)
