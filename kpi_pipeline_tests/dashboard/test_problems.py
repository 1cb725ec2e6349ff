from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import Engine

from kpi_pipeline.db.dashboard.problems import read_problems
from kpi_pipeline.domain.client_problems import FailingCheck, Problem, problems_by_client
from kpi_pipeline_tests.conftest import NOW
from kpi_pipeline_tests.dashboard.rows import put_outcome


def test_a_client_has_a_sentence_for_each_failing_check_that_names_it_errors_first(
    engine: Engine,
) -> None:
    late = {"workspace": "acme", "as_of": "never", "problem": "its numbers are 5 h 2 min old"}
    fell = {"workspace": "acme", "date": "2026-03-18", "problem": "a number is below 0"}
    put_outcome(engine, "freshness", [late, {**late, "workspace": "birch"}])
    put_outcome(engine, "plausible", [fell], severity="ERROR")
    put_outcome(engine, "complete", [{"workspace": "acme", "missing": "x", "days": 1}], since=None)
    with engine.connect() as connection:
        found = read_problems(connection)
    assert found == {
        "acme": [
            Problem("plausible", "ERROR", "A number is below 0 on 2026-03-18", NOW),
            Problem("freshness", "WARN", "Its numbers are 5 h 2 min old", NOW),
        ],
        "birch": [Problem("freshness", "WARN", "Its numbers are 5 h 2 min old", NOW)],
    }


@pytest.mark.parametrize(
    ("check", "row", "sentence"),
    [
        (
            "complete",
            {"missing": "2026-03-01 to 2026-03-04", "days": 4},
            "Rows of 2026-03-01 to 2026-03-04 missing (4 days)",
        ),
        (
            "no_missing_days",
            {"missing": "nothing was ever fetched", "days": 4},
            "Nothing was ever fetched",
        ),
        (
            "rows_match_inputs",
            {"date": "2026-03-18", "column": "emails_sent_mtd", "stored": "7", "expected": "8"},
            "Emails_sent_mtd of 2026-03-18 is 7, and should be 8",
        ),
        (
            "totals_match_bison",
            {"count": "positive replies", "ours": 5, "bison": 6, "why": None},
            "This month's positive replies: 5 here, 6 in Email Bison",
        ),
        (
            "totals_match_bison",
            {"count": "could not be asked", "ours": None, "bison": None, "why": "key rejected"},
            "Totals of Email Bison are unknown: key rejected",
        ),
        (
            "events_applied",
            {"problem": "set aside", "reason": "no date"},
            "An event is set aside: no date",
        ),
        (
            "webhooks_delivered",
            {"problem": "2 positive replies not delivered", "day": "2026-03-17"},
            "2 positive replies not delivered (2026-03-17)",
        ),
        (
            "webhooks_delivered",
            {"problem": "silent", "day": "2026-03-17"},
            "No webhook reports the positive replies of 2026-03-17",
        ),
        (
            "registry_matches_bison",
            {"kind": "bad keys", "what": "its key was rejected"},
            "Its key was rejected",
        ),
    ],
)
def test_each_check_says_in_a_sentence_what_it_found(
    check: str, row: Mapping[str, Any], sentence: str
) -> None:
    found = problems_by_client(
        [FailingCheck(check, "WARN", [{"workspace": "acme", **row}], ["acme"], None)]
    )
    assert [it.text for it in found["acme"]] == [sentence]


def test_a_client_beyond_the_stored_rows_of_a_check_has_its_problem_too() -> None:
    row = {"workspace": "acme", "problem": "its numbers are 5 h old"}
    checks = [
        FailingCheck("freshness", "WARN", [row], ["acme", "birch"], None),
        FailingCheck("new_one", "WARN", [], ["birch"], None),
    ]
    found = problems_by_client(checks)
    assert [it.text for it in found["birch"]] == [
        "Its numbers are stale",
        "The check new_one fails",
    ]
