"""What happens while the sandbox runs: leads turn interested, and the day's events are delivered.

One agency reports about 31 a day from some 12 of its 26 clients, mostly in business hours.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from random import Random

from bison_sandbox.world.agency import AGENCY, uniforms
from bison_sandbox.world.clock import Clock
from bison_sandbox.world.workspaces import Workspace

LEADS_A_WEEKDAY = 31.0
"""In an agency of 26 workspaces."""

_IN_LUCK = 0.55
_LONGEST_NAP = 60.0
_DELIVERY_SECONDS = 1.0
_LONGEST_CATCH_UP = timedelta(hours=1)
_DAY_SECONDS = 86_400.0
_BUSINESS_HOURS = range(8, 18)
_IN_BUSINESS_HOURS = 0.9
_WEEKEND = 0.05


class Live:
    """Marks leads at random moments (a Poisson process) of real time, not of a frozen clock.

    Once a second it also has the events of the series `delivered that were recorded since.
    `pace` multiplies the rate of a real agency. Above 1, time of day and weekday play no role: a
    demo shows leads at any hour.
    """

    def __init__(
        self,
        seed: int,
        pace: float,
        clock: Clock,
        present: Callable[[], Sequence[Workspace]],
        mark: Callable[[Workspace], object],
        deliver: Callable[[datetime, datetime], None],
    ) -> None:
        self._seed = seed
        self._pace = pace
        self._clock = clock
        self._present = present
        self._mark = mark
        self._deliver = deliver
        self._chance = Random(f"{seed} live")  # noqa: S311 - moments, not secrets
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start; must be called from within the event loop."""
        self._tasks = [asyncio.create_task(work) for work in (self._work(), self._deliver_all())]

    async def stop(self) -> None:
        """Stop."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _deliver_all(self) -> None:
        since = self._clock.now()
        while True:
            await asyncio.sleep(_DELIVERY_SECONDS)
            until = self._clock.now()
            # Nothing of the time that a clock is set over: that may be weeks.
            if timedelta() < until - since < _LONGEST_CATCH_UP:
                self._deliver(since, until)
            since = until

    async def _work(self) -> None:
        while True:
            rate = leads_a_second(len(self._present()), self._pace, self._local_now())
            wait = self._chance.expovariate(rate) if rate else _LONGEST_NAP
            # A Poisson process has no memory: the wait may be drawn again with a new rate.
            await asyncio.sleep(min(wait, _LONGEST_NAP))
            if wait < _LONGEST_NAP:
                self._mark_one()

    def _mark_one(self) -> None:
        workspaces = self._present()
        weights = chances(self._seed, workspaces, self._clock.today())
        if any(weights):
            self._mark(self._chance.choices(workspaces, weights)[0])

    def _local_now(self) -> datetime:
        return self._clock.running().astimezone(self._clock.zone)


def leads_a_second(workspaces: int, pace: float, local_now: datetime) -> float:
    """Mean number of leads per second at this local time."""
    mean = LEADS_A_WEEKDAY * workspaces / AGENCY / _DAY_SECONDS
    return mean * pace * (1.0 if pace > 1 else _busyness(local_now))


def chances(seed: int, workspaces: Sequence[Workspace], day: date) -> list[float]:
    """Relative chance of each workspace to have the next lead of a day.

    In proportion to size; but on any day the quiet ones and nearly half of the others have none.
    """
    sizes = [
        0.0 if each.profile.is_quiet_on(day) else each.profile.interested_a_month
        for each in workspaces
    ]
    largest = max(sizes, default=0.0)
    return [
        size
        if size == largest or uniforms(seed, each.id, "live", day.toordinal())[0] < _IN_LUCK
        else 0.0
        for each, size in zip(workspaces, sizes, strict=True)
    ]


def _busyness(local_now: datetime) -> float:
    """Rate of this hour relative to a weekday's mean hour."""
    hours = len(_BUSINESS_HOURS)
    if local_now.hour in _BUSINESS_HOURS:
        share = _IN_BUSINESS_HOURS / hours
    else:
        share = (1 - _IN_BUSINESS_HOURS) / (24 - hours)
    return 24 * share * (_WEEKEND if local_now.weekday() >= 5 else 1.0)
