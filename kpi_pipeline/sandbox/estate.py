"""The agency at the start: which workspaces there are, how large, how lucky, and since when."""

from dataclasses import dataclass
from datetime import date, timedelta
from random import Random

from kpi_pipeline.sandbox.names import client_names

AGENCY = 26
"""The size of agency that the vendor's users report figures of; larger estates repeat it."""

WITH_OWN_KEY = 23 / AGENCY
HISTORY_MONTHS = 15
WEEKDAYS_A_MONTH = 21.7
LARGEST_A_WEEKDAY = 9_000.0
QUIET_CYCLE_DAYS = 30
QUIET_DAYS = 20


@dataclass(frozen=True, eq=False)
class Profile:
    """What a workspace's numbers are drawn from.

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
        """Interested replies to expect of a month."""
        mean = self.mails * WEEKDAYS_A_MONTH * self.reply_rate * self.interested_share
        return mean if self.quiet_phase is None else mean * (1 - QUIET_DAYS / QUIET_CYCLE_DAYS)


@dataclass(frozen=True)
class Client:
    """One workspace of the estate, with the agency's own notes on it (they show in the CSV)."""

    profile: Profile
    name: str
    display_name: str
    has_own_key: bool
    monthly_kpi_target: int | None
    monthly_sending_target: int | None


def build_estate(seed: int, count: int, today: date, first_id: int | None = None) -> list[Client]:
    """The workspaces of an agency of this size, in the order of their ids.

    The ids have gaps; with a `first_id` they are that one and those that follow it.
    """
    chance = Random(f"{seed} estate")  # noqa: S311 - a sandbox's sizes, not a secret
    ranks = list(range(count))
    chance.shuffle(ranks)
    largest = ranks.index(0)
    own_key = set(chance.sample(range(count), round(count * WITH_OWN_KEY)))
    special = [place for place in chance.sample(range(count), count) if place != largest]
    agencies = max(1, count // AGENCY)
    without_target = special[0] if special else None
    # Phases a third of the cycle apart: on any day one of three has been quiet for ten days.
    phases = {place: 10 * (n % 3) for n, place in enumerate(special[1 : 1 + 3 * agencies])}
    late = set(special[1 + 3 * agencies : 1 + 7 * agencies])

    clients = []
    workspace_id = 10
    for place, name in enumerate(client_names(seed, count)):
        # Drawn in either case: the rest of the estate comes from the same stream.
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
    """The profile of a workspace that is added later: middling, and starting on that day."""
    return Profile(workspace_id, start, 1_200.0, 0.003, 0.45, 0.015, 0.3)


def _mails_a_weekday(rank: int, chance: Random) -> float:
    """One very large client, then a slope: 990,000 mails a month in all over 26 clients."""
    if rank == 0:
        return LARGEST_A_WEEKDAY
    return float(2_550 * max(1, rank % AGENCY) ** -0.25 * chance.uniform(0.94, 1.06))


def _kpi_target(profile: Profile, chance: Random) -> int:
    """A target that this client's month comes to somewhere between 60 and 140 % of."""
    progress = 0.6 + 0.8 * chance.random() ** 1.2
    goal: int = 5 * round(profile.interested_a_month / progress / 5)
    return max(50, min(300, goal))


def _month_before(day: date, months: int) -> date:
    """The first day of the month that lies so many months back.

    A start holds to months, so that a sandbox started again next day tells the same history.
    """
    year, month = divmod(day.year * 12 + day.month - 1 - months, 12)
    return date(year, month + 1, 1)
