"""Problems as the alerts see them: what they are called, their lines, and the kinds of errors."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import psutil
import pytest

from kpi_pipeline.alerts.given_up import given_up_problems
from kpi_pipeline.alerts.problem import Line
from kpi_pipeline.alerts.sources import (
    kind_of_error,
    kind_of_row,
    problem_of_check,
    problem_of_syncs,
)
from kpi_pipeline.bison import BisonError, KeyUse, errors
from kpi_pipeline.checks.outcome import Check, Severity
from kpi_pipeline.db.check_results import StoredOutcome
from kpi_pipeline.db.sync_log import SyncFailure
from kpi_pipeline.parts import Parts, PartState, PartStatus
from kpi_pipeline_tests.alerts.support import START


def failure(workspace: str, what: str, remedy: str) -> SyncFailure:
    error = BisonError(workspace, "GET /api/stats", what, remedy)
    return SyncFailure(workspace, "a run", f"{error}", START, START)


def stored(check: Check, *rows: Mapping[str, Any], more: int = 0, **changed: Any) -> StoredOutcome:
    clients = list(dict.fromkeys(str(it["workspace"]) for it in rows if it.get("workspace")))
    values: dict[str, Any] = {
        "name": check.value,
        "asset": "client_metrics",
        "severity": "ERROR",
        "description": "What was found. What to do.",
        "offenders": rows,
        "more": more,
        "clients": clients,
        "checked_at": START,
        "since": START,
    }
    return StoredOutcome(**{**values, **changed})


def test_a_part_that_was_given_up_is_a_problem_while_its_command_runs() -> None:
    process = psutil.Process()
    page = PartState("page", "Dagster's page", PartStatus.RUNNING, START)
    gateway = PartState("gateway", "The gateway", PartStatus.GIVEN_UP, START, reason="ended")
    parts = Parts("kpi up", process.pid, process.create_time(), [page, gateway])
    assert [(it.name, it.title, it.severity) for it in given_up_problems(parts)] == [
        ("part_gateway", "The gateway does not run", Severity.ERROR)
    ]
    assert given_up_problems(replace(parts, created=0.0)) == [], "another process with this id"
    assert given_up_problems(None) == []


def test_errors_with_the_same_remedy_are_of_one_kind_whatever_the_server_said() -> None:
    failures = [
        failure("acme", "was answered 503", errors.UNAVAILABLE),
        failure("birch", "timed out after 30 s", errors.UNAVAILABLE),
        failure("cedar", "was rejected: 401", errors.for_key(KeyUse.WORKSPACE)),
        failure("dale", "was answered 503", errors.UNAVAILABLE),
    ]
    found = problem_of_syncs(failures)
    assert found.title == "the sync fails"
    assert {it.clients: it.kind for it in found.lines} == {
        ("acme", "dale"): "no answer",
        ("birch",): "no answer",
        ("cedar",): "rejected key",
    }
    assert found.lines[0].clients == ("acme", "dale"), "the most common reason comes first"
    assert kind_of_error("its rows could not be read") == "other"


def test_each_remedy_of_an_error_has_a_kind() -> None:
    remedies = [value for name, value in vars(errors).items() if name.isupper() and name[0] != "_"]
    sentences = [it for it in remedies if isinstance(it, str)]
    assert len(sentences) >= 9
    assert [it for it in sentences if kind_of_error(it) == "other"] == []


def test_the_name_of_a_client_is_left_out_of_its_reason_as_a_word_alone() -> None:
    (line,) = problem_of_syncs([failure("api", "of api was answered 503", "Ask api")]).lines
    assert line.text == "GET /api/stats of it was answered 503. Ask it."


@pytest.mark.parametrize(
    ("check", "row", "kind"),
    [
        (Check.PLAUSIBLE, {"problem": "5.1 % of 1,000 emails sent bounced in 7 days"}, None),
        (Check.PLAUSIBLE, {"problem": "the month's emails sent fell from 6,000 to 5"}, None),
        (Check.REGISTRY_MATCHES_BISON, {"kind": "bad keys", "what": "rejected"}, "bad keys"),
        (Check.EVENTS_APPLIED, {"problem": "set aside"}, "set aside"),
        (Check.TOTALS_MATCH_BISON, {"count": "bounces", "why": None}, "differs"),
        (Check.TOTALS_MATCH_BISON, {"count": "unanswered", "why": "503"}, "unanswered"),
        (Check.FRESHNESS, {"problem": "its numbers are 4 h old"}, ""),
    ],
)
def test_a_row_of_a_check_has_a_kind_that_no_number_changes(
    check: Check, row: Mapping[str, str | None], kind: str | None
) -> None:
    found = kind_of_row(check, row)
    other = {name: value and value.replace("5", "7") for name, value in row.items()}
    assert found == kind_of_row(check, other)
    assert found == kind if kind is not None else found


def test_kinds_count_only_where_the_lines_name_every_client() -> None:
    row = {"workspace": "acme", "date": None, "problem": "a number is below 0"}
    (line,) = problem_of_check(stored(Check.PLAUSIBLE, row), syncs_stopped=False).lines
    assert line == Line("a number is below 0", ("acme",), "a number is below")
    many = stored(Check.PLAUSIBLE, row, more=3, clients=["acme", "birch"])
    (line,) = problem_of_check(many, syncs_stopped=False).lines
    assert line.kind == ""


@pytest.mark.parametrize(
    ("check", "row", "text"),
    [
        (
            Check.TOTALS_MATCH_BISON,
            {"count": "positive replies", "ours": 5, "bison": 6, "why": None},
            "this month's positive replies: 5 here, 6 in Email Bison",
        ),
        (
            Check.AUTOMATION_ALIVE,
            {"what": "schedule daily_kpi_sync", "problem": "is switched off"},
            "schedule daily_kpi_sync is switched off",
        ),
        (
            Check.WEBHOOKS_DELIVERED,
            {"workspace": None, "instance": "main", "problem": "no webhook ever arrived"},
            "main: no webhook ever arrived",
        ),
        (Check.FRESHNESS, {"workspace": "acme", "age_hours": 4}, "age_hours 4"),
    ],
)
def test_a_line_is_a_sentence_where_there_are_words_for_it(
    check: Check, row: Mapping[str, Any], text: str
) -> None:
    (line,) = problem_of_check(stored(check, row), syncs_stopped=False).lines
    assert line.text == text


def test_a_problem_is_called_by_what_happened_and_by_how_bad_it_is() -> None:
    row = {"workspace": "acme", "count": "unanswered", "why": "503"}
    titles = [
        problem_of_check(it, syncs_stopped=False).title
        for it in (
            stored(Check.PLAUSIBLE, {"workspace": "acme", "problem": "a number is below 0"}),
            stored(Check.PLAUSIBLE, {"workspace": "acme"}, severity=Severity.WARN.value),
            stored(Check.TOTALS_MATCH_BISON, row),
        )
    ]
    assert titles == [
        "numbers are impossible",
        "numbers are unusual",
        "Email Bison leaves totals_match_bison unanswered",
    ]
