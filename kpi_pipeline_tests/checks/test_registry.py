"""The check `registry_matches_bison`: what each kind of finding means, and whom it concerns."""

import pytest

from kpi_pipeline.checks.outcome import Outcome, Severity, lacks_answers, lacks_only_answers
from kpi_pipeline.checks.registry import registry_matches_bison

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
        ("unserved", Severity.ERROR, "Unserved: name the instance, and its master key"),
        ("bad_keys", Severity.ERROR, "Bad keys: `kpi keys rotate CLIENT`"),
        ("unread", Severity.ERROR, "Unread: the list of workspaces could not be read"),
        ("unanswered", Severity.ERROR, "Unanswered: the list of workspaces is asked for again"),
        ("vanished", Severity.WARN, "Vanished: import a client that left with active = no."),
        ("unchecked_keys", Severity.WARN, "Unchecked keys: their keys are asked about again"),
        ("unknown", Severity.WARN, "Unknown: import new workspaces that are clients"),
        ("renamed", Severity.WARN, "Renamed: new names are taken over"),
    ],
)
def test_each_kind_has_its_severity_and_its_remedy(
    kind: str, severity: Severity, remedy: str
) -> None:
    found = checked(**{kind: ["acme: something about it"]})
    assert found.severity is severity
    assert found.offenders == [
        {
            "workspace": "acme",
            "kind": kind.replace("_", " "),
            "what": "something about it",
        }
    ]
    assert f"to look at: acme. {remedy}" in found.description
    assert {name for name, number in found.numbers.items() if number} == {kind}


@pytest.mark.parametrize(
    "line",
    [
        "main 107: Willow Labs",
        "The master key of main was rejected.",
        "willow: a client that is none of ours",
    ],
)
def test_a_line_that_does_not_begin_with_a_clients_key_stands_as_it_is(line: str) -> None:
    (row,) = checked(unknown=[line]).offenders
    assert (row["workspace"], row["what"]) == (None, line)


def test_a_strangers_workspace_is_named_in_the_sentence() -> None:
    found = checked(unknown=["main 107: Willow Labs"])
    assert "to look at: main 107: Willow Labs. Unknown: import" in found.description


def test_a_clients_line_keeps_the_colons_within() -> None:
    found = checked(bad_keys=["birch: Email Bison said: 401: no"])
    assert [(it["workspace"], it["what"]) for it in found.offenders] == [
        ("birch", "Email Bison said: 401: no")
    ]


def test_one_error_among_warnings_makes_it_an_error_and_comes_first() -> None:
    found = checked(
        renamed=["acme: Acme → Acme Inc"],
        unknown=["main 107: Willow Labs"],
        unread=["second does not answer."],
    )
    assert found.severity is Severity.ERROR
    assert [it["kind"] for it in found.offenders] == ["unread", "unknown", "renamed"]
    assert "second does not answer., main 107: Willow Labs, acme. Unread: " in found.description
    assert "; unknown: import" in found.description
    assert found.numbers["unread"] == found.numbers["renamed"] == 1


def test_of_many_only_three_are_named() -> None:
    found = checked(unknown=[f"main {number}: Workspace" for number in range(110, 115)])
    assert (
        "to look at: main 110: Workspace, main 111: Workspace, main 112: Workspace, … and 2 "
        in (found.description)
    )


def test_kinds_that_the_check_does_not_know_are_no_finding() -> None:
    assert checked(not_listed=["main: without a master key"]).passed


def test_a_list_or_a_key_that_got_no_answer_is_no_finding_and_what_was_refused_is() -> None:
    silent = checked(unanswered=["main does not answer."], unchecked_keys=["acme: timed out."])
    assert lacks_only_answers(silent.offenders)
    assert not lacks_answers(checked(unread=["main refuses its key."]).offenders)
    mixed = checked(unanswered=["main does not answer."], bad_keys=["acme: rejected."])
    assert lacks_answers(mixed.offenders)
    assert not lacks_only_answers(mixed.offenders)
