"""Facts, targets and rows for the tests of `domain.metrics`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from kpi_pipeline.domain.metrics import ComputedRow, DailyFact, Target, compute

CHICAGO = ZoneInfo("America/Chicago")
LONG_AFTER = datetime(2101, 1, 1, tzinfo=UTC)
NO_TARGETS: list[Target] = []
_ONE_REPLY = {"sent": 100, "replied": 10, "interested": 1, "bounced": 5, "unsubscribed": 2}


def facts_of(
    days: Sequence[date] | Mapping[date, int],
    workspace: str = "acorn-labs",
    as_of: datetime = LONG_AFTER,
    **counts: int,
) -> list[DailyFact]:
    """Give each day the counts of _ONE_REPLY, or as many positive replies as it maps to."""
    per_day = days if isinstance(days, Mapping) else dict.fromkeys(days, _ONE_REPLY["interested"])
    return [
        DailyFact(workspace, day, **{**_ONE_REPLY, "interested": replies, **counts}, as_of=as_of)
        for day, replies in per_day.items()
    ]


def target_of(
    monthly: int | None,
    holds_from: date = date(2020, 1, 1),
    workspace: str = "acorn-labs",
    sending: int | None = None,
) -> list[Target]:
    return [Target(workspace, holds_from, monthly, sending)]


def computed(
    facts: Sequence[DailyFact], dates: Sequence[date], targets: Sequence[Target] = NO_TARGETS
) -> list[ComputedRow]:
    return compute(facts, targets, dates, CHICAGO)


def row_of(
    facts: Sequence[DailyFact], day: date, targets: Sequence[Target] = NO_TARGETS
) -> dict[str, Any]:
    """The one row of `day`, by the names of its columns."""
    (row,) = computed(facts, [day], targets)
    return asdict(row)
