"""Workspaces and their campaigns."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from itertools import islice
from typing import Literal

from bison_sandbox.world.agency import Client, Profile, newcomer, number
from bison_sandbox.world.keys import Key

CampaignSizes = Literal["few", "many"]
_MOST_CAMPAIGNS = 40
_WAVES = range(1, 10)
_NAMES = ("Founders", "Operations leads", "Finance heads", "Owners, second wave", "Event follow-up")


@dataclass(frozen=True)
class Campaign:
    """A campaign of a workspace."""

    id: int
    name: str


def campaigns_of(seed: int, workspace_id: int, sizes: CampaignSizes) -> list[Campaign]:
    """The campaigns of a workspace, the largest first; how many depends on `sizes`."""
    if sizes == "few":
        count = number(2, len(_NAMES), seed, "campaigns", workspace_id)
    else:
        count = number(20, _MOST_CAMPAIGNS, seed, "many campaigns", workspace_id)
    waves = (f"{name}{f', wave {wave}' if wave > 1 else ''}" for wave in _WAVES for name in _NAMES)
    first_id = workspace_id * 100
    return [Campaign(first_id + place, name) for place, name in enumerate(islice(waves, count))]


def split(count: int, parts: int) -> list[int]:
    """A count spread over campaigns, each with a smaller share than the one before."""
    weights = range(parts, 0, -1)
    shares = [count * weight // sum(weights) for weight in weights]
    shares[0] += count - sum(shares)
    return shares


@dataclass
class Workspace:
    """A workspace; its name is a label that people change.

    `own_key` is the API key in the agency's list, if there is one.
    """

    profile: Profile
    name: str
    created_at: datetime
    updated_at: datetime
    display_name: str = ""
    monthly_kpi_target: int | None = None
    monthly_sending_target: int | None = None
    own_key: Key | None = None
    deleted: bool = False

    @property
    def id(self) -> int:
        """Its id in the API."""
        return self.profile.workspace_id


class Workspaces:
    """The workspaces of the agency, in order of their ids."""

    def __init__(self, clients: Iterable[Client]) -> None:
        self._all: dict[int, Workspace] = {}
        for client in clients:
            created_at = datetime.combine(client.profile.start, time(15), UTC)
            self._all[client.profile.workspace_id] = Workspace(
                profile=client.profile,
                name=client.name,
                created_at=created_at,
                updated_at=created_at,
                display_name=client.display_name,
                monthly_kpi_target=client.monthly_kpi_target,
                monthly_sending_target=client.monthly_sending_target,
            )
        self.largest_id = max(self._all.values(), key=lambda each: each.profile.mails).id

    def present(self) -> list[Workspace]:
        """All workspaces that are not deleted."""
        return [workspace for workspace in self._all.values() if not workspace.deleted]

    def get(self, workspace_id: int) -> Workspace | None:
        """A workspace that is not deleted."""
        workspace = self._all.get(workspace_id)
        return None if workspace is None or workspace.deleted else workspace

    def get_deleted(self, workspace_id: int) -> Workspace | None:
        """A workspace that is deleted."""
        workspace = self._all.get(workspace_id)
        return workspace if workspace is not None and workspace.deleted else None

    def add(self, name: str, now: datetime, today: date) -> Workspace:
        """A new workspace that starts today, with the next free id."""
        profile = newcomer(max(self._all) + 1, today)
        workspace = Workspace(profile, name, created_at=now, updated_at=now)
        self._all[workspace.id] = workspace
        return workspace
