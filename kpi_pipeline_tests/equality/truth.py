"""What really happened in the workspaces of an instance, as it would answer for it."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from kpi_pipeline.app import AppContext
from kpi_pipeline.bison import KeyUse, WorkspaceRef
from kpi_pipeline.bison.model import BisonInstance, DailySeries, DayCounts, Reading
from kpi_pipeline.domain.calendar import days_between

T = TypeVar("T")


@dataclass
class Truth:
    """What happened until `now`, and what was revised since; `empty` workspaces list no day.

    `series` counts the calls for the daily series.
    """

    zone: ZoneInfo
    now: datetime
    happened: list[tuple[str, str, datetime]] = field(default_factory=list)
    revised: Counter[tuple[str, date, str]] = field(default_factory=Counter)
    empty: set[str] = field(default_factory=set)
    series: Counter[str] = field(default_factory=Counter)

    def counts(self, workspace: str, day: date) -> DayCounts:
        """A few of each on every closed day, and what happened."""
        base = day.toordinal() % 5 if day < self.now.astimezone(self.zone).date() else 0
        counts = Counter({"sent": 3 * base, "replied": base, "interested": base % 3})
        for slug, metric, at in self.happened:
            if slug == workspace and at.astimezone(self.zone).date() == day and at <= self.now:
                counts[metric] += 1
        for metric in ("sent", "interested"):
            counts[metric] = max(counts[metric] + self.revised[workspace, day, metric], 0)
        return DayCounts(
            sent=counts["sent"],
            replied=counts["replied"],
            interested=counts["interested"],
            bounced=base % 2,
            unsubscribed=0,
            total_opens=0,
            unique_opens=0,
        )


class TrueInstance:
    """Answers from the truth, in place of `BisonClient`."""

    unknown_fields: dict[tuple[str, str], int] = {}  # noqa: RUF012 - never written

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    async def __aenter__(self) -> "TrueInstance":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def check_key(self, *_: object) -> None:
        """Every key is right."""

    async def read_as(
        self, workspace: WorkspaceRef, _: object, read: Callable[[Any], Awaitable[T]]
    ) -> Reading[T]:
        """As `BisonClient.read_as`."""
        reader = _TrueReader(self._truth, workspace.workspace)
        return Reading(await read(reader), KeyUse.MASTER, 1)


@dataclass(frozen=True)
class _TrueReader:
    truth: Truth
    workspace: str

    async def daily_series(self, first: date, last: date) -> DailySeries:
        truth = self.truth
        truth.series[self.workspace] += 1
        if self.workspace in truth.empty:
            nothing = dict.fromkeys(days_between(first, last), DayCounts(0, 0, 0, 0, 0, 0, 0))
            return DailySeries(truth.now, nothing, [(first, last)])
        days = {it: truth.counts(self.workspace, it) for it in days_between(first, last)}
        return DailySeries(truth.now, days)

    async def sending_plan(self, day: str) -> int:
        return self.truth.now.hour + (day == "tomorrow")


@dataclass(frozen=True)
class TrueApp(AppContext):
    """An installation whose only instance is the truth."""

    truth: Truth = field(kw_only=True)

    def bison_client(self, instance: BisonInstance) -> Any:
        """In place of a client over HTTP."""
        return TrueInstance(self.truth)
