"""Events on top of facts, until the next fetch absorbs them.

A fact carries the moment at which Email Bison was asked for it. It already holds the events that
happened before; later ones are added. An event that happens while the facts are being fetched can
count twice, or not at all, until the day is fetched again.
"""

from collections.abc import Collection, Iterable
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


def overlay(facts: Iterable[DailyFact], counted: Iterable[CountedEvents]) -> list[DailyFact]:
    """Return the facts with the counted events of their days added.

    A day without facts stays missing, whatever events it has: how many emails were sent on it is
    not known.
    """
    days = {(fact.workspace, fact.date): fact for fact in facts}
    for it in counted:
        if (fact := days.get((it.workspace, it.date))) is not None:
            days[it.workspace, it.date] = _raised(fact, it)
    return list(days.values())


def days_of_events(
    days: Collection[tuple[str, date]], counted: Iterable[CountedEvents], tz: ZoneInfo
) -> list[DailyFact]:
    """Return what events tell of these (workspace, day), none of which was ever fetched.

    Their counts are added to zeros, as of the first instant of the day: at that instant, the zeros
    are true.
    """
    found = {
        (workspace, day): DailyFact(workspace, day, **_ZEROS, as_of=day_start(day, tz))
        for workspace, day in days
    }
    for it in counted:
        if (fact := found.get((it.workspace, it.date))) is not None:
            found[it.workspace, it.date] = _raised(fact, it)
    return list(found.values())


def _raised(fact: DailyFact, by: CountedEvents) -> DailyFact:
    return replace(fact, **{by.metric: getattr(fact, by.metric) + by.events})
