"""Whether the registry of clients is what Email Bison says it is."""

from collections.abc import Collection, Mapping, Sequence

from kpi_pipeline.checks.outcome import Check, Offender, Outcome, Severity, outcome
from kpi_pipeline.domain.formatting import counted, listed

# What is found, and what to do about it; the first few mean that a client gets no numbers.
_REMEDIES = {
    "unserved": "name the instance, and its master key, in KPI_BISON_INSTANCES, or give the client "
    "a key of its own in the CSV",
    "bad_keys": "`kpi keys rotate CLIENT` puts a good key in the place of a rejected one",
    "unread": "the list of workspaces could not be read: mend what is named, and materialize "
    "client_registry again",
    "unanswered": "the list of workspaces is asked for again each hour, until Email Bison answers",
    "vanished": "import a client that left with active = no",
    "unchecked_keys": "their keys are asked about again within the hour",
    "unknown": "import new workspaces that are clients (`kpi clients import`), with their target",
    "renamed": "new names are taken over; labels of your own stand in the CSV as display_name",
}
_ERRORS = ("unserved", "bad_keys", "unread", "unanswered")


def registry_matches_bison(
    findings: Mapping[str, Sequence[str]], clients: Collection[str], listed_workspaces: int
) -> Outcome:
    """What a comparison with Email Bison means, given its lines by the kind of finding.

    A line begins with the key of the client whom it concerns, where it concerns one of `clients`.
    """
    found = {kind: findings.get(kind, ()) for kind in _REMEDIES}
    offenders = [_row(kind, line, clients) for kind, lines in found.items() for line in lines]
    names = list(dict.fromkeys(str(it["workspace"] or it["what"]) for it in offenders))
    there = f"{counted(len(clients), 'active client')}, {listed_workspaces} workspaces listed"
    remedies = "; ".join(
        f"{kind.replace('_', ' ')}: {remedy}" for kind, remedy in _REMEDIES.items() if found[kind]
    )
    bad = any(found[kind] for kind in _ERRORS)
    return outcome(
        Check.REGISTRY_MATCHES_BISON,
        offenders,
        well=f"{there}: each is a workspace of Email Bison, and its key is good.",
        trouble=f"{there}; to look at: {listed(names, 3)}. {remedies[:1].upper()}{remedies[1:]}.",
        severity=Severity.ERROR if bad else Severity.WARN,
        numbers={kind: len(lines) for kind, lines in found.items()},
    )


def _row(kind: str, line: str, clients: Collection[str]) -> Offender:
    head, _, rest = line.partition(":")
    ours = head in clients
    return {
        "workspace": head if ours else None,
        "kind": kind.replace("_", " "),
        "what": rest.strip() if ours else line,
    }
