"""`GET /accuracy?months=3`: the projections of past months, and what the months brought."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from statistics import median

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kpi_pipeline.dashboard.paging import paging
from kpi_pipeline.dashboard.site import site
from kpi_pipeline.db.dashboard.history import read_judged
from kpi_pipeline.db.registry.clients import Client, all_clients
from kpi_pipeline.domain.accuracy import (
    Accuracy,
    Judgement,
    judged_dates,
    judged_months,
    projection_accuracy,
)

_MOST_MONTHS = 24
_MONTHS = 3


@dataclass(frozen=True)
class AccuracyMonth:
    """One month: its clients with their labels, in the order of these, and all of them together."""

    month: date
    clients: Sequence[tuple[str, Accuracy]]
    overall: Accuracy


@dataclass(frozen=True)
class TypicalErrors:
    """The median of the absolute errors in percent, over clients and months; None without any.

    Half of the projections were closer. `judged` are how many have an error.
    """

    tenth: float | None
    twentieth: float | None
    judged: int


def accuracy_page(request: Request) -> Response:
    """The accuracy of projections over past months, the latest month first."""
    of = site(request)
    months = _months(request.query_params.get("months", ""))
    today = of.today()
    with of.engine.connect() as connection:
        clients = all_clients(connection)
        rows = read_judged(connection, judged_dates(today, months))
    active = [it.workspace for it in clients if it.active]
    expected = [(month, it) for month in judged_months(today, months) for it in active]
    found = projection_accuracy(rows, expected)
    shown = by_month(found, clients)
    return of.render(
        request,
        "accuracy.html",
        months=shown,
        paging=paging(request, "/accuracy", max((len(it.clients) for it in shown), default=0)),
        chosen=months,
        choices=(3, 6, 12, _MOST_MONTHS),
        replies=typical(it.positive_replies for it in found if it.workspace),
        emails=typical(it.emails for it in found if it.workspace),
    )


def by_month(found: Sequence[Accuracy], clients: Sequence[Client]) -> list[AccuracyMonth]:
    """The entries of each month, the latest month first."""
    labels = {it.workspace: it.label for it in clients}
    months: dict[date, list[Accuracy]] = {}
    for it in found:
        months.setdefault(it.month, []).append(it)
    shown = []
    for month, (*of_clients, overall) in sorted(months.items(), reverse=True):
        labelled = [(labels[it.workspace], it) for it in of_clients if it.workspace]
        labelled.sort(key=lambda it: (it[0].casefold(), it[1].workspace))
        shown.append(AccuracyMonth(month, labelled, overall))
    return shown


def typical(judgements: Iterable[Judgement]) -> TypicalErrors:
    """The median error of these projections."""
    judged = list(judgements)
    tenth = [abs(error) for it in judged if (error := it.error_10th) is not None]
    twentieth = [abs(error) for it in judged if (error := it.error_20th) is not None]
    return TypicalErrors(
        median(tenth) if tenth else None,
        median(twentieth) if twentieth else None,
        max(len(tenth), len(twentieth)),
    )


def _months(text: str) -> int:
    if not text:
        return _MONTHS
    if not re.fullmatch(r"[0-9]{1,2}", text) or not 1 <= int(text) <= _MOST_MONTHS:
        raise HTTPException(400, f"months takes a number from 1 to {_MOST_MONTHS}.")
    return int(text)


ROUTES = [Route("/accuracy", accuracy_page)]
