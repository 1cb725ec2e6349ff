"""The agency at the start: its workspaces, their sizes, rates, start dates, keys and targets."""

import math
import struct
from dataclasses import dataclass
from datetime import date, timedelta
from hashlib import blake2b
from random import Random

_UNIT = 2.0**-32


def uniforms(*name: object) -> tuple[float, ...]:
    """Sixteen numbers in [0, 1), determined by this name."""
    digest = blake2b("|".join(map(str, name)).encode()).digest()
    return tuple(number * _UNIT for number in struct.unpack("<16I", digest))


def number(low: int, high: int, *name: object) -> int:
    """A whole number from `low` to `high`, both included, determined by this name."""
    return low + int(uniforms(*name)[0] * (high - low + 1))


def poisson(mean: float, chance: float) -> int:
    """A Poisson-distributed count, for a mean below some 500; `chance` is a number in [0, 1)."""
    probability = math.exp(-mean)
    total, count, most = probability, 0, int(4 * mean) + 20
    while chance > total and count < most:
        count += 1
        probability *= mean / count
        total += probability
    return count


def binomial(trials: int, share: float, chance: float) -> int:
    """How many of `trials` succeed with probability `share` (below 1) each."""
    odds = share / (1 - share)
    probability = (1 - share) ** trials
    total, count = probability, 0
    while chance > total and count < trials:
        probability *= odds * (trials - count) / (count + 1)
        count += 1
        total += probability
    return count


def words(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


# Awkward names of real accounts: two similar ones, an apostrophe, a trailing space, and letters
# beyond ASCII.
AWKWARD = (
    "Cedar Row Dental ",
    "O'Farrow & Daughters",
    "Brûlé Café Supply",
    "Blue Harbor",
    "Blue-Harbor",
)

_FIRST = words(
    "Amber Ashen Aspen Birch Bold Bramble Brass Bright Brook Calm Cinder Clear Clover Cobalt "
    "Copper Coral Crimson Crown Dapple Dawn Eagle Elder Ember Fair Falcon Fern Flint Frost Garnet "
    "Gentle Gilded Golden Granite Grey Hazel Heron Hollow Indigo Iron Ivory Jade Juniper Keen Lark "
    "Laurel Linden Lively Lunar Maple Marble Meadow Mellow Misty Mossy Noble Oaken Opal Otter "
    "Pebble Quiet"
)
_SECOND = words(
    "Anchor Arch Bay Beacon Bend Bridge Canyon Cliff Compass Cove Creek Crest Dale Delta Field "
    "Forge Gate Glen Grove Harvest Haven Hearth Hill Isle Lantern Ledge Mill Orchard Path Peak "
    "Pier Point Quarry Ridge River Sail Spring Summit Tide Vale"
)
_TRADE = words(
    "Accounting Advisory Analytics Capital Dental Fitness Freight Insurance Landscaping Law "
    "Logistics Marketing Payroll Realty Recruiting Robotics Roofing Security Software Solar"
)


def client_names(seed: int, count: int) -> list[str]:
    """`count` distinct invented names, including the awkward ones as far as they fit."""
    chance = Random(f"{seed} names")  # noqa: S311 - a sandbox's names, not a secret
    combinations = range(len(_FIRST) * len(_SECOND) * len(_TRADE))
    awkward = list(AWKWARD[:count])
    names = awkward + [
        _name(number) for number in chance.sample(combinations, count - len(awkward))
    ]
    chance.shuffle(names)
    return names


def _name(number: int) -> str:
    number, trade = divmod(number, len(_TRADE))
    first, second = divmod(number, len(_SECOND))
    return f"{_FIRST[first]} {_SECOND[second]} {_TRADE[trade]}"


AGENCY = 26
"""The size of agency that users of the vendor report figures of; larger agencies repeat it."""

WITH_OWN_KEY = 23 / AGENCY
HISTORY_MONTHS = 15
WEEKDAYS_A_MONTH = 21.7
LARGEST_A_WEEKDAY = 9_000.0
QUIET_CYCLE_DAYS = 30
QUIET_DAYS = 20


@dataclass(frozen=True, eq=False)
class Profile:
    """Parameters of a workspace's numbers.

    `start` is its first day with any mail. `mails` is the mean of a weekday; the rates are shares
    of the mails sent (replies, bounces, opens) and of the replies (interested). A workspace with
    a `quiet_phase` has no interested reply on 20 of every 30 days, from that day of the cycle on.
    """

    workspace_id: int
    start: date
    mails: float
    reply_rate: float
    interested_share: float
    bounce_rate: float
    open_rate: float
    quiet_phase: int | None = None

    def is_quiet_on(self, day: date) -> bool:
        """Whether no reply of this day is an interested one."""
        if self.quiet_phase is None:
            return False
        return (day.toordinal() + self.quiet_phase) % QUIET_CYCLE_DAYS < QUIET_DAYS

    @property
    def interested_a_month(self) -> float:
        """Expected number of interested replies in a month."""
        mean = self.mails * WEEKDAYS_A_MONTH * self.reply_rate * self.interested_share
        return mean if self.quiet_phase is None else mean * (1 - QUIET_DAYS / QUIET_CYCLE_DAYS)


@dataclass(frozen=True)
class Client:
    """One workspace, with the agency's own data on it, which the CSV shows."""

    profile: Profile
    name: str
    display_name: str
    has_own_key: bool
    monthly_kpi_target: int | None
    monthly_sending_target: int | None


def build_agency(seed: int, count: int, today: date, first_id: int | None = None) -> list[Client]:
    """The workspaces of an agency of this size, in order of their ids.

    The ids have gaps; with a `first_id` they count up from it.
    """
    chance = Random(f"{seed} estate")  # noqa: S311 - a sandbox's sizes, not a secret
    ranks = list(range(count))
    chance.shuffle(ranks)
    largest = ranks.index(0)
    own_key = set(chance.sample(range(count), round(count * WITH_OWN_KEY)))
    special = [place for place in chance.sample(range(count), count) if place != largest]
    agencies = max(1, count // AGENCY)
    without_target = special[0] if special else None
    # Phases a third of the cycle apart: on any day one of the three has been quiet for ten days.
    phases = {place: 10 * (n % 3) for n, place in enumerate(special[1 : 1 + 3 * agencies])}
    late = set(special[1 + 3 * agencies : 1 + 7 * agencies])

    clients = []
    workspace_id = 10
    for place, name in enumerate(client_names(seed, count)):
        # Draw in either case: all further values come from the same stream.
        workspace_id += chance.randint(1, 6)
        months = HISTORY_MONTHS
        extra_days = 0
        if place in late:
            months, extra_days = chance.choice((1, 2, 4, 7, 11)), chance.randint(0, 20)
        profile = Profile(
            workspace_id=workspace_id if first_id is None else first_id + place,
            start=_month_before(today, months) + timedelta(days=extra_days),
            mails=_mails_a_weekday(ranks[place], chance),
            reply_rate=chance.uniform(0.0028, 0.0036),
            interested_share=chance.uniform(0.42, 0.46),
            bounce_rate=chance.uniform(0.010, 0.020),
            open_rate=chance.uniform(0.15, 0.30),
            quiet_phase=phases.get(place),
        )
        goal = _kpi_target(profile, chance)
        sending_goal = round(profile.mails * WEEKDAYS_A_MONTH * chance.uniform(0.9, 1.15), -2)
        clients.append(
            Client(
                profile=profile,
                name=name,
                display_name="Blue Harbor (West)" if name == "Blue-Harbor" else "",
                has_own_key=place in own_key,
                monthly_kpi_target=None if place == without_target else goal,
                monthly_sending_target=int(sending_goal),
            )
        )
    return clients


def newcomer(workspace_id: int, start: date) -> Profile:
    """The profile of a workspace that is added later: of average size, starting on that day."""
    return Profile(workspace_id, start, 1_200.0, 0.003, 0.45, 0.015, 0.3)


def _mails_a_weekday(rank: int, chance: Random) -> float:
    """One very large client, then a slope: 990,000 mails a month in all over 26 clients."""
    if rank == 0:
        return LARGEST_A_WEEKDAY
    return float(2_550 * max(1, rank % AGENCY) ** -0.25 * chance.uniform(0.94, 1.06))


def _kpi_target(profile: Profile, chance: Random) -> int:
    """A target of which this client reaches between 60 and 140 % in a month."""
    progress = 0.6 + 0.8 * chance.random() ** 1.2
    goal: int = 5 * round(profile.interested_a_month / progress / 5)
    return max(50, min(300, goal))


def _month_before(day: date, months: int) -> date:
    """The first day of the month that is so many months back.

    A start on the first of a month keeps the history the same in a sandbox of the next day.
    """
    year, month = divmod(day.year * 12 + day.month - 1 - months, 12)
    return date(year, month + 1, 1)
