"""Which client of the old registry is which workspace of Email Bison. No database, no network."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from kpi_pipeline.db.moving_in.source import OldClient
from kpi_pipeline.db.registry.clients import Client
from kpi_pipeline.domain.formatting import joined, listed
from kpi_pipeline.errors import KpiError

# The workspaces of each instance, by id with their names; None if they could not be listed.
Listed = Mapping[str, Mapping[int, str] | None]


@dataclass(frozen=True)
class Match:
    """An old client, and the identity and name that it has in Email Bison.

    `also` are the names of other registrations of the same workspace.
    """

    old: OldClient
    instance: str
    bison_workspace_id: int
    name: str
    active: bool
    also: tuple[str, ...] = ()


@dataclass
class Matches:
    """The clients that can be taken, those that can't with the reason, and what people may wish
    to know of the others.
    """

    found: list[Match] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def match_clients(
    clients: Sequence[OldClient],
    known: Sequence[Client],
    listed_by: Listed,
    labels: Mapping[str, str],
) -> Matches:
    """Find each old client's workspace, by its id where the name that belongs to it agrees.

    `labels` says which of our instances an instance of the old registry is.

    Raises:
        KpiError: if it is not known which instance is which.
    """
    matches = Matches()
    instances = _instances(clients, list(listed_by), labels)
    for old in clients:
        instance = instances[(old.text("bison_instance") or "").casefold()]
        ours = [it for it in known if it.instance == instance and it.name.casefold() in old.names]
        match = _match(old, instance, listed_by[instance], ours, matches)
        if match is not None:
            matches.found.append(match)
    matches.found = list(_once_each(matches))
    return matches


def _instances(
    clients: Sequence[OldClient], configured: Sequence[str], labels: Mapping[str, str]
) -> Mapping[str, str]:
    """Our instance for each label of the old registry, compared without regard to case."""
    given = {old.casefold(): ours for old, ours in labels.items()}
    if unknown := [it for it in given.values() if it not in configured]:
        raise KpiError(
            f"The instance {unknown[0]} is not configured; known: {listed(configured)}. Correct "
            "--instance, or KPI_BISON_INSTANCES."
        )
    found = {(it.text("bison_instance") or "") for it in clients}
    by_label = {it: given.get(it.casefold()) for it in found}
    for label in found:
        if by_label[label] is None and label.casefold() in configured:
            by_label[label] = label.casefold()
        elif by_label[label] is None and len(configured) == len(found) == 1:
            by_label[label] = configured[0]
    if unclear := sorted(it or "(blank)" for it in found if by_label[it] is None):
        raise KpiError(
            f"The old registry's instances are {joined(unclear)}, and which of "
            f"{joined(list(configured))} each is cannot be told from their names: workspace ids "
            "are those of one instance. Add, for each, "
            f"--instance '{unclear[0].replace('(blank)', '')}={configured[0]}'."
        )
    return {label.casefold(): ours for label, ours in by_label.items() if ours is not None}


def _match(
    old: OldClient,
    instance: str,
    names: Mapping[int, str] | None,
    ours: Sequence[Client],
    matches: Matches,
) -> Match | None:
    number = old.bison_workspace_id
    if len(ours) == 1 and ours[0].bison_workspace_id != number:
        # Somebody imported it with the right id.
        number = ours[0].bison_workspace_id
        matches.notes.append(f"{old.name}: taken as the client {ours[0].workspace}, by its name.")
        return Match(old, instance, number, ours[0].name, old.active)
    if names is None:
        if number is None:
            matches.problems.append(
                f"{old.name}: it has no Bison workspace id, and the workspaces of {instance} could "
                f"not be listed. {_REMEDY}"
            )
            return None
        return Match(
            old, instance, number, old.text("bison_workspace_name") or old.name, old.active
        )
    by_name = [it for it, name in names.items() if name.casefold() in old.names]
    if number is not None and number in by_name:
        return Match(old, instance, number, names[number], old.active)
    if by_name:
        if number is None and len(by_name) == 1:
            matches.notes.append(
                f"{old.name}: the registry has no Bison workspace id; found by its name: "
                f"{by_name[0]}."
            )
            return Match(old, instance, by_name[0], names[by_name[0]], old.active)
        other = names.get(number) if number is not None else None
        matches.problems.append(
            f"{old.name}: the registry says workspace {number or '(none)'}, "
            + (f"which is {other} in Email Bison. " if other else "")
            + f"Of its name are: {listed([str(it) for it in by_name])}. {_REMEDY}"
        )
        return None
    if number is None:
        matches.problems.append(
            f"{old.name}: it has no Bison workspace id, and {instance} lists no workspace of its "
            f"name. {_REMEDY}"
        )
        return None
    if number in names:
        matches.notes.append(f"{old.name}: it is called {names[number]} in Email Bison by now.")
        return Match(old, instance, number, names[number], old.active)
    matches.notes.append(
        f"{old.name}: {instance} lists no workspace {number} any more; taken as an inactive client."
    )
    return Match(old, instance, number, old.name, active=False)


_REMEDY = "Import it with the right id (`kpi clients import`), and run this again."


def _once_each(matches: Matches) -> Iterator[Match]:
    """One match for each workspace: of two registrations, the active one, or the later one."""
    by_identity: defaultdict[tuple[str, int], list[Match]] = defaultdict(list)
    for it in matches.found:
        by_identity[it.instance, it.bison_workspace_id].append(it)
    for several in by_identity.values():
        chosen = max(several, key=lambda it: (it.active, it.old.text("updated_at") or ""))
        others = [it.old.name for it in several if it is not chosen]
        yield replace(chosen, also=tuple(others))
        matches.notes += [
            f"{name}: registered twice, as {chosen.old.name} too; its rows are taken as those of "
            "that client."
            for name in others
        ]
