"""A case: switches of Email Bison, and what a sync under them must leave behind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from kpi_pipeline_tests.bison_sandbox.running import Bison
from kpi_pipeline_tests.sync.support import SERIES, Agency

# Pieces of errors: what whoever reads one is to do next.
NOT_BELIEVED = "No number was taken from it; run it again"
IS_IT_UP = "See whether Email Bison is up"
GIVE_A_KEY = "Give the client a valid api_key of its workspace in the CSV"
GIVE_A_MASTER_KEY = "Give the instance a valid super-admin key in KPI_BISON_INSTANCES"
CORRECT_THE_CSV = "Correct the client's bison_workspace_id or its api_key in the CSV"
SET_INACTIVE = "set the client inactive in the CSV"

Whose = Literal["keyed", "keyless", "all"]


class Scene:
    """A run of three clients, one of which, or all, meet the switches.

    `victim` is the client that a fault strikes; `other` is one with a key of its own.
    """

    def __init__(self, agency: Agency, whose: Whose) -> None:
        self.agency = agency
        first, self.other = agency.keyed[:2]
        self.clients = [first, self.other, agency.keyless[0]]
        self.victim = agency.keyless[0] if whose == "keyless" else first
        self.victims = self.clients if whose == "all" else [self.victim]
        self.spared = [slug for slug in self.clients if slug not in self.victims]

    @property
    def bison(self) -> Bison:
        return self.agency.bison

    @property
    def own_id(self) -> int:
        return self.agency.ids[self.victim]

    @property
    def other_id(self) -> int:
        return self.agency.ids[self.other]


Switch = Callable[[Scene], object]


@dataclass(frozen=True)
class Case:
    """Switches, and how a sync under them ends.

    With nothing `said`, every client's numbers are right. Else those of the clients that are
    `whose` stay as they were, and each one's error says all of `said`, where `{own}` and `{other}`
    stand for the workspaces of the victim and of another client. `struck` is how often the faults
    strike in all, `calls` how many calls the victim takes. Where `days_move`, the switch decides
    to which day an event belongs, so what is right is asked under it.
    """

    name: str
    switches: tuple[Switch, ...]
    said: tuple[str, ...] = ()
    whose: Whose = "keyed"
    struck: int = 0
    calls: int | None = None
    days_move: bool = False
    slow: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)


def variant(**changed: object) -> Switch:
    """The instance answers in another variant."""
    return lambda scene: scene.bison.variants(**changed)


def fault(kind: str, path: str = SERIES, /, **options: object) -> Switch:
    """Something goes wrong with the victim's calls of one path."""
    return lambda scene: scene.bison.fault(kind, path=path, workspace_id=scene.own_id, **options)


def fault_of_all(kind: str, path: str = "", /, **options: object) -> Switch:
    """Something goes wrong with everybody's calls."""
    return lambda scene: scene.bison.fault(kind, path=path, **options)


def move_user(when: str, path: str, *, to_other: bool = True, **options: object) -> Switch:
    """Somebody switches workspaces in the vendor's own pages, at a call with the master key."""
    return lambda scene: scene.bison.fault(
        "move_user",
        path=path,
        key="master",
        when=when,
        to=scene.other_id if to_other else scene.own_id,
        **options,
    )


def edited_to_own_id(path: str, pointer: str) -> Switch:
    """The victim's workspace id stands in an answer as a text."""
    return lambda scene: fault("edit", path, pointer=pointer, value=str(scene.own_id))(scene)


def edited_to_other_id(path: str, pointer: str, **options: object) -> Switch:
    """Another client's workspace id stands in the victim's answer."""
    return lambda scene: fault("edit", path, pointer=pointer, value=scene.other_id, **options)(
        scene
    )


def revoked_key(scene: Scene) -> None:
    """The victim's key is valid no more."""
    scene.agency.revoke(scene.victim)


def key_of_another(scene: Scene) -> None:
    """The key that the victim was given is one of another workspace."""
    body = {"workspace_id": scene.own_id, "to": scene.other_id}
    scene.bison.http.post("/sandbox/keys/move", json=body).raise_for_status()


def deleted_workspace(scene: Scene) -> None:
    """The victim's workspace is gone."""
    scene.agency.delete(scene.victim)


def given_anew(scene: Scene) -> None:
    """The victim's key was imported again, so nobody has asked yet whose it is."""
    key = scene.agency.key(scene.victim)
    assert key is not None
    scene.agency.give_key(scene.victim, key)
