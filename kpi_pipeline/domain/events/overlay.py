"""Events on top of facts, until the next fetch absorbs them.

A fact carries the moment at which Email Bison was asked for it. It already holds the events that
arrived before; later ones are added. An event that arrives while the facts are being fetched can
count twice, or not at all, until the day is fetched again.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from zoneinfo import ZoneInfo

from kpi_pipeline.domain.calendar import day_start
from kpi_pipeline.domain.columns import FACT_COUNTS
from kpi_pipeline.domain.metrics import DailyFact

_ZEROS = dict.fromkeys(FACT_COUNTS, 0)


@dataclass(frozen=True, slots=True)
class CountedEvents:
    """How many events raise one count of a client's day beyond what its facts hold."""

    workspace: str
    date: date
    metric: str
    events: int


def overlay(
    facts: Iterable[DailyFact],
    counted: Iterable[CountedEvents],
    *,
    open_day: date | None,
    tz: ZoneInfo,
) -> list[DailyFact]:
    """Return the facts with the counted events added.

    `open_day` is today. If nothing was fetched for it yet, its events are added to zeros, with the
    first instant of the day as `as_of`: at that instant the zeros are true. A closed day without
    facts stays missing, whatever events it has: how many emails were sent on it is not known.
    """
    days = {(fact.workspace, fact.date): fact for fact in facts}
    for it in counted:
        fact = days.get((it.workspace, it.date))
        if fact is None:
            if it.date != open_day:
                continue
            fact = DailyFact(it.workspace, it.date, **_ZEROS, as_of=day_start(it.date, tz))
        raised = {it.metric: getattr(fact, it.metric) + it.events}
        days[it.workspace, it.date] = replace(fact, **raised)
    return list(days.values())
