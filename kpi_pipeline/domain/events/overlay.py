"""Events on top of facts, until the next fetch absorbs them.

A fact row carries the moment at which Email Bison was asked for it. What arrived before is held by
it already; what arrived later is added. An event that was under way while the facts were fetched
can count twice, or not yet, until the day is fetched again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

from kpi_pipeline.domain.calendar import day_start
from kpi_pipeline.domain.columns import FACT_COUNTS


@dataclass(frozen=True)
class CountedEvents:
    """How many events raise one count of a client's day beyond what its facts hold."""

    workspace: str
    date: date
    metric: str
    events: int


def overlay(
    facts: Iterable[Mapping[str, Any]],
    counted: Iterable[CountedEvents],
    *,
    open_day: date | None,
    tz: ZoneInfo,
) -> list[dict[str, Any]]:
    """Facts (a row a client and day, with FACT_COUNTS and as_of) with the counted events added.

    `open_day` is today. If nothing was fetched for it yet, its events stand on the zeros that are
    true of its first instant, as which the row is marked. A closed day without facts stays
    missing, whatever events it has: how many mails went out on it is not known.
    """
    days: dict[tuple[str, date], dict[str, Any]] = {
        (row["workspace"], row["date"]): dict(row) for row in facts
    }
    for it in counted:
        key = it.workspace, it.date
        if key not in days:
            if it.date != open_day:
                continue
            zeros = dict.fromkeys(FACT_COUNTS, 0)
            start = day_start(it.date, tz)
            days[key] = {"workspace": it.workspace, "date": it.date, **zeros, "as_of": start}
        days[key][it.metric] += it.events
    return list(days.values())
