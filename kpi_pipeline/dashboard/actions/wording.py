"""What pages say before an action, and how far one is: pure functions of clients, days and runs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from kpi_pipeline.dashboard.formatting import age, long_date, short_date, visible
from kpi_pipeline.db.dashboard.requests import ActionRequest, Kind, Progress, Status
from kpi_pipeline.db.registry.clients import Client
from kpi_pipeline.domain.calendar import fetch_period
from kpi_pipeline.domain.formatting import counted

MOST_DAYS = 366
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
# By then Dagster's sensor has seen a request, if it runs.
_TAKEN_UP_WITHIN = timedelta(seconds=30)


@dataclass(frozen=True)
class Effect:
    """What a run over these clients and days does: sentences for the page that asks for it."""

    days: str
    rows: str
    calls: str


def effect_of(
    clients: Sequence[Client], first: date, last: date, *, today: date, series_max_days: int
) -> Effect:
    """The days, the rows, and the calls to Email Bison of a run."""
    days = (last - first).days + 1
    start, end = fetch_period(first, last)
    parts = -(-((end - start).days + 1) // series_max_days)
    plans = 2 if last >= today else 0
    # The master key is switched to the workspace of a client without an own key, and confirmed.
    shared = sum(not it.has_key for it in clients)
    calls = len(clients) * (parts + plans) + 3 * shared
    each = f"{counted(parts, 'call')} for its daily numbers from {short_date(start)} on"
    if plans:
        each += f" and {plans} for today's sending plan"
    who = "" if len(clients) == 1 else " of each client"
    if shared == 1 == len(clients):
        more = ", and 3 for the master key, as it has no API key of its own"
    elif shared:
        more = f", and 3 for each of the {shared:,} without an API key of their own"
    else:
        more = ""
    return Effect(
        days=long_date(first) if first == last else f"{long_date(first)} to {long_date(last)}",
        rows=f"{counted(days * len(clients), 'row')} of {counted(len(clients), 'client')}, and "
        "every later row in which a number changes with them.",
        calls=f"About {counted(calls, 'call')}: {each}{who}{more}.",
    )


def gap_of(
    rows: Mapping[str, Sequence[Mapping[str, object]]], workspace: str
) -> tuple[date, date] | None:
    """The first and last day that checks find missing for a client; `rows` are theirs, by check."""
    texts = [
        str(text)
        for found in rows.values()
        for row in found
        if row.get("workspace") == workspace
        for text in row.values()
    ]
    days = [date.fromisoformat(it) for text in texts for it in _DATE.findall(text)]
    return (min(days), max(days)) if days else None


def checked_period(first: str, last: str, start: date, today: date) -> tuple[date, date] | str:
    """The days to fill, as typed; or a sentence that says what is wrong with them."""
    try:
        days = date.fromisoformat(first), date.fromisoformat(last)
    except ValueError:
        return "Write both days as YYYY-MM-DD, such as 2026-03-01."
    if days[0] > days[1]:
        return "The first day is after the last one."
    if days[0] < start:
        return f"Choose days from {short_date(start)} on: the grid of runs begins there."
    if days[1] > today:
        return f"Choose days until {short_date(today)}: later ones are still to come."
    if (days[1] - days[0]).days >= MOST_DAYS:
        return f"Choose {MOST_DAYS} days at most; `kpi backfill` fills more."
    return days


def state_of(progress: Progress, now: datetime) -> str:
    """How far a request is, as a sentence."""
    request = progress.request
    if not request.is_open:
        return request.message or request.status.value
    if request.status is Status.WAITING:
        waited = now - request.requested_at
        if waited < _TAKEN_UP_WITHIN:
            return "Waiting for Dagster, which takes up requests every 5 seconds."
        return (
            f"Dagster has not taken this up for {age(request.requested_at, now)}. `kpi status` "
            "says whether it runs. The request stays, and its run starts then."
        )
    if progress.done == 0:
        return "Dagster starts the run."
    return f"{progress.done:,} of {counted(progress.total, 'client')} done."


def title_of(request: ActionRequest, labels: Mapping[str, str]) -> str:
    """What was asked for: Refresh of Acme."""
    what = "Refresh" if request.kind is Kind.REFRESH else "Fill"
    if len(request.workspaces) == 1:
        return f"{what} of {visible(labels.get(request.workspaces[0], request.workspaces[0]))}"
    return f"{what} of {counted(len(request.workspaces), 'client')}"
