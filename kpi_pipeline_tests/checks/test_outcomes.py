"""Stored outcomes of checks: since when each fails, and whom it names."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from kpi_pipeline.checks.outcome import Check, Outcome, Severity, outcome
from kpi_pipeline.db.check_results import (
    StoredOutcome,
    failing_checks,
    read_outcomes,
    store_outcomes,
)
from kpi_pipeline_tests.checks.support import TODAY, local

START = local(TODAY, 15)
FAILING = StoredOutcome(
    name="freshness",
    asset="client_metrics",
    severity="WARN",
    description="1 of 2 clients fresh; stale: acme.",
    offenders=[{"workspace": "acme", "late": 7, "share": 0.5, "day": None}],
    more=0,
    clients=["acme"],
    checked_at=START,
    since=START,
)
PASSING = replace(
    FAILING, description="2 of 2 clients fresh.", offenders=[], clients=[], since=None
)


def store(engine: Engine, minutes: int, *found: StoredOutcome) -> None:
    """Store outcomes of checks that ran so many minutes after the start."""
    now = START + timedelta(minutes=minutes)
    with engine.begin() as connection:
        store_outcomes(
            connection,
            [replace(it, checked_at=now, since=None if it.since is None else now) for it in found],
        )


def stored(engine: Engine, name: str = "freshness") -> StoredOutcome:
    with engine.connect() as connection:
        (found,) = read_outcomes(connection, [name])
    return found


def found_of(number: int, severity: Severity = Severity.ERROR) -> Outcome:
    return outcome(
        Check.COMPLETE,
        [{"workspace": f"client-{place}"} for place in range(number)],
        if_passed="Passed.",
        if_failed="Failed.",
        severity=severity,
    )


def test_an_outcome_is_read_as_it_was_stored(engine: Engine) -> None:
    store(engine, 0, FAILING)
    assert stored(engine) == FAILING


def test_a_check_that_passes_has_no_time_since_when_it_fails(engine: Engine) -> None:
    store(engine, 0, PASSING)
    assert stored(engine) == PASSING


def test_a_check_that_keeps_failing_keeps_the_time_when_it_first_failed(engine: Engine) -> None:
    store(engine, 0, FAILING)
    store(engine, 15, replace(FAILING, severity="ERROR", description="Worse.", more=3))
    store(engine, 30, replace(FAILING, severity="ERROR", description="Worse still.", more=4))
    assert stored(engine) == replace(
        FAILING,
        severity="ERROR",
        description="Worse still.",
        more=4,
        checked_at=START + timedelta(minutes=30),
    )


def test_a_check_that_fails_again_after_a_recovery_starts_a_new_time(engine: Engine) -> None:
    store(engine, 0, FAILING)
    store(engine, 15, PASSING)
    assert stored(engine).since is None
    store(engine, 30, FAILING)
    assert stored(engine).since == START + timedelta(minutes=30)


@pytest.mark.parametrize(("younger", "older"), [(FAILING, PASSING), (PASSING, FAILING)])
def test_an_older_outcome_that_arrives_late_changes_nothing(
    engine: Engine, younger: StoredOutcome, older: StoredOutcome
) -> None:
    store(engine, 15, younger)
    before = stored(engine)
    store(engine, 14, older)
    assert stored(engine) == before


def test_among_several_outcomes_only_the_older_ones_are_ignored(engine: Engine) -> None:
    complete = replace(FAILING, name="complete")
    store(engine, 15, FAILING)
    store(engine, 10, PASSING, complete)
    assert stored(engine).since == START + timedelta(minutes=15)
    assert stored(engine, "complete").since == START + timedelta(minutes=10)


def test_checks_whose_last_outcome_failed_are_failing(engine: Engine) -> None:
    store(engine, 0, FAILING, replace(FAILING, name="complete"), replace(PASSING, name="plausible"))
    store(engine, 1, PASSING)
    with engine.connect() as connection:
        assert [it.name for it in failing_checks(connection)] == ["complete"]
        assert [it.name for it in read_outcomes(connection)] == [
            "complete",
            "freshness",
            "plausible",
        ]


def test_no_outcomes_store_nothing(engine: Engine) -> None:
    store(engine, 0)
    with engine.connect() as connection:
        assert read_outcomes(connection) == []


@pytest.mark.parametrize(("problems", "shown", "more"), [(50, 50, 0), (51, 50, 1), (76, 50, 26)])
def test_problems_beyond_fifty_are_counted_and_not_shown(
    problems: int, shown: int, more: int
) -> None:
    found = found_of(problems)
    assert (len(found.problems), found.more) == (shown, more)
    assert found.problems[-1] == {"workspace": "client-49"}


def test_all_affected_clients_are_named_once_even_if_their_rows_are_not_shown() -> None:
    rows = [{"workspace": "acme", "day": str(day)} for day in range(60)]
    found = outcome(
        Check.NO_MISSING_DAYS,
        [*rows, {"workspace": "birch", "day": "0"}, {"workspace": None, "day": "1"}],
        if_passed="Passed.",
        if_failed="Failed.",
        severity=Severity.ERROR,
    )
    assert (found.more, found.clients) == (12, ["acme", "birch"])


def test_an_outcome_without_problems_passes_and_is_no_error() -> None:
    found = found_of(0)
    assert (found.passed, found.description, found.severity) == (True, "Passed.", Severity.WARN)


def test_an_outcome_with_problems_has_the_severity_of_its_rule() -> None:
    found = found_of(1, Severity.WARN)
    assert (found.passed, found.description, found.severity) == (
        False,
        "Failed.",
        Severity.WARN,
    )
