from dataclasses import dataclass

from kpi_pipeline.sandbox.seeded import number

_NAMES = ("Founders", "Operations leads", "Finance heads", "Owners, second wave", "Event follow-up")


@dataclass(frozen=True)
class Campaign:
    """A campaign of a workspace."""

    id: int
    name: str


def campaigns_of(seed: int, workspace_id: int) -> list[Campaign]:
    """The campaigns of a workspace, two to five, the largest first."""
    count = number(2, len(_NAMES), seed, "campaigns", workspace_id)
    return [Campaign(workspace_id * 10 + place, _NAMES[place]) for place in range(count)]
