"""The check `registry_matches_bison`: what each kind of finding means, and whom it names."""

import pytest

from kpi_pipeline.checks.bison import registry_matches_bison
from kpi_pipeline.checks.outcome import Outcome, Severity, all_unanswered, has_unanswered

CLIENTS = ("acme", "birch")


def checked(**findings: list[str]) -> Outcome:
    return registry_matches_bison(findings, CLIENTS, 3)


def test_without_a_finding_it_passes_with_both_numbers() -> None:
    found = checked(unknown=[], renamed=[])
    assert found.passed
    assert found.description == (
        "2 active clients, 3 workspaces listed: each is a workspace of Email Bison, and its key is "
        "good."
    )
    assert set(found.numbers.values()) == {0}


@pytest.mark.parametrize(
    ("kind", "severity", "remedy"),
    [
        ("unserved", Severity.ERROR, "Unserved: add the instance with its master key"),
        ("bad_keys", Severity.ERROR, "Bad keys: `kpi keys rotate CLIENT`"),
        ("unread", Severity.ERROR, "Unread: the list of workspaces could not be read"),
        ("unanswered", Severity.ERROR, "Unanswered: the list of workspaces is requested again"),
        ("vanished", Severity.WARN, "Vanished: import a client that left with active = no."),
        ("unchecked_keys", Severity.WARN, "Unchecked keys: their keys are checked again"),
        ("unknown", Severity.WARN, "Unknown: import new workspaces that are clients"),
        ("webhooks", Severity.WARN, "Webhooks: `kpi webhooks register` creates missing ones"),
        ("unchecked_webhooks", Severity.WARN, "Unchecked webhooks: their webhooks are read again"),
        ("renamed", Severity.WARN, "Renamed: new names are adopted"),
    ],
)
def test_each_kind_of_finding_has_its_severity_and_what_to_do(
    kind: str, severity: Severity, remedy: str
) -> None:
    found = checked(**{kind: ["acme: something about it"]})
    assert found.severity is severity
    assert found.problems == [
        {
            "workspace": "acme",
            "kind": kind.replace("_", " "),
            "what": "something about it",
        }
    ]
    assert f"problems: acme. {remedy}" in found.description
    assert {name for name, number in found.numbers.items() if number} == {kind}


@pytest.mark.parametrize(
    "line",
    [
        "main 107: Willow Labs",
        "The master key of main was rejected.",
        "willow: a client that is none of ours",
    ],
)
def test_a_line_that_does_not_begin_with_a_workspace_is_kept_as_it_is(line: str) -> None:
    (row,) = checked(unknown=[line]).problems
    assert (row["workspace"], row["what"]) == (None, line)


def test_an_unregistered_workspace_is_named_in_the_description() -> None:
    found = checked(unknown=["main 107: Willow Labs"])
    assert "problems: main 107: Willow Labs. Unknown: import" in found.description


def test_a_clients_line_keeps_its_own_colons() -> None:
    found = checked(bad_keys=["birch: Email Bison said: 401: no"])
    assert [(it["workspace"], it["what"]) for it in found.problems] == [
        ("birch", "Email Bison said: 401: no")
    ]


def test_one_error_among_warnings_makes_it_an_error_and_comes_first() -> None:
    found = checked(
        renamed=["acme: Acme → Acme Inc"],
        unknown=["main 107: Willow Labs"],
        unread=["second does not answer."],
    )
    assert found.severity is Severity.ERROR
    assert [it["kind"] for it in found.problems] == ["unread", "unknown", "renamed"]
    assert "second does not answer., main 107: Willow Labs, acme. Unread: " in found.description
    assert "; unknown: import" in found.description
    assert found.numbers["unread"] == found.numbers["renamed"] == 1


def test_only_three_of_many_are_named() -> None:
    found = checked(unknown=[f"main {number}: Workspace" for number in range(110, 115)])
    assert "problems: main 110: Workspace, main 111: Workspace, main 112: Workspace and 2 " in (
        found.description
    )


def test_unknown_kinds_of_findings_are_ignored() -> None:
    assert checked(not_listed=["main: without a master key"]).passed


def test_a_list_or_key_without_an_answer_is_unanswered_and_a_rejected_one_is_not() -> None:
    silent = checked(unanswered=["main does not answer."], unchecked_keys=["acme: timed out."])
    assert all_unanswered(silent.problems)
    assert all_unanswered(checked(unchecked_webhooks=["acme: timed out."]).problems)
    assert not has_unanswered(checked(unread=["main rejects its key."]).problems)
    mixed = checked(unanswered=["main does not answer."], bad_keys=["acme: rejected."])
    assert has_unanswered(mixed.problems)
    assert not all_unanswered(mixed.problems)
