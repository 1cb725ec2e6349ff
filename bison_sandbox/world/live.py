"""Leads that turn interested by themselves while the sandbox runs, as in a real agency.

About 31 a day from some 12 of 26 clients, in business hours mostly, are reported of one.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import date, datetime
from random import Random

from bison_sandbox.background import Background
from bison_sandbox.world.agency import AGENCY, uniforms
from bison_sandbox.world.clock import Clock
from bison_sandbox.world.workspaces import Workspace

LEADS_A_WEEKDAY = 31.0
"""Of an agency of 26 workspaces."""

_IN_LUCK = 0.55
_LONGEST_NAP = 60.0
_DAY_SECONDS = 86_400.0
_BUSINESS_HOURS = range(8, 18)
_IN_BUSINESS_HOURS = 0.9
_WEEKEND = 0.05


class Live:
    """Marks leads at random moments (a Poisson process) of the real time, not of a frozen clock.

    `pace` is how many times as many as in a real agency. Above 1 the time of day and the weekday
    play no role, so that something happens whenever somebody looks.
    """

    def __init__(
        self,
        seed: int,
        pace: float,
        clock: Clock,
        present: Callable[[], Sequence[Workspace]],
        mark: Callable[[Workspace], object],
    ) -> None:
        self._seed = seed
        self._pace = pace
        self._clock = clock
        self._present = present
        self._mark = mark
        self._chance = Random(f"{seed} live")  # noqa: S311 - moments, not secrets
        self._background = Background(self._work)

    def start(self) -> None:
        """Begin; to be called from within the event loop."""
        self._background.start()

    async def stop(self) -> None:
        """End."""
        await self._background.stop()

    async def _work(self) -> None:
        while True:
            rate = leads_a_second(len(self._present()), self._pace, self._local_now())
            wait = self._chance.expovariate(rate) if rate else _LONGEST_NAP
            # What is to come does not depend on how long nothing came: so the rate may be looked
            # at anew before the moment is there.
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
    """How many leads turn interested in a second, on average, at this time on the wall."""
    mean = LEADS_A_WEEKDAY * workspaces / AGENCY / _DAY_SECONDS
    return mean * pace * (1.0 if pace > 1 else _busyness(local_now))


def chances(seed: int, workspaces: Sequence[Workspace], day: date) -> list[float]:
    """How likely the next lead of a day is one of each workspace's, relative to each other.

    By their size; but on each day, quiet ones and nearly half of the others have none.
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
    """How busy an hour is beside a weekday's mean hour."""
    hours = len(_BUSINESS_HOURS)
    if local_now.hour in _BUSINESS_HOURS:
        share = _IN_BUSINESS_HOURS / hours
    else:
        share = (1 - _IN_BUSINESS_HOURS) / (24 - hours)
    return 24 * share * (_WEEKEND if local_now.weekday() >= 5 else 1.0)
