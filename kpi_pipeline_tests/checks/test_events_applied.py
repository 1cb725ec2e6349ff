"""The check `events_applied`: events that do not count, by what is wrong with them."""

from datetime import date, timedelta
from typing import Any

import pytest

from kpi_pipeline.checks.outcome import Outcome, Severity
from kpi_pipeline.checks.webhook_events import MAX_PER_KIND, events_applied
from kpi_pipeline.db.check_queries.events import read_problem_events
from kpi_pipeline_tests.checks.support import TODAY, Stock, local

# Three hours after the events of today came in.
NOW = local(TODAY, 15)


@pytest.fixture(autouse=True)
def _clients(stock: Stock) -> None:
    stock.clients("Acme")
    stock.clients("Gone", active=False)


def checked(stock: Stock) -> Outcome:
    with stock.engine.connect() as connection:
        return events_applied(read_problem_events(connection, NOW, MAX_PER_KIND))


def test_it_passes_when_every_event_counts(stock: Stock) -> None:
    stock.events("acme", TODAY, 3)
    stock.events("acme", TODAY, status="received", arrived_at=NOW - timedelta(minutes=15))
    found = checked(stock)
    assert found.passed
    assert found.description == "Every event that counts is in the numbers."
    assert (found.more, found.numbers) == (0, {})


def test_each_kind_of_problem_is_counted_with_what_to_do(stock: Stock) -> None:
    stock.events("acme", TODAY, status="set_aside", reason="It broke the rows.")
    stock.events("acme", TODAY, 2, status="received")
    found = checked(stock)
    assert found.severity is Severity.WARN
    assert found.numbers == {"set_aside": 1, "waiting": 2}
    assert found.description.startswith(
        "Some events are not in the numbers. 1 event set aside: fix what "
    )
    assert " 2 events waiting: check that Dagster's daemon is running" in found.description


def test_a_problem_is_an_event_with_its_client_and_reason(stock: Stock) -> None:
    stock.events("acme", TODAY, status="set_aside", reason="It broke the rows.")
    (row,) = checked(stock).problems
    assert {**row, "id": None} == {
        "problem": "set aside",
        "id": None,
        "type": "lead_interested",
        "client": "acme",
        "reason": "It broke the rows.",
    }


def test_an_event_without_a_client_is_named_by_its_workspace_after_a_day(stock: Stock) -> None:
    stranger: dict[str, Any] = {
        "status": "unmatched",
        "bison_workspace_id": 107,
        "event_type": None,
    }
    stock.events(None, TODAY, **stranger)
    assert checked(stock).passed
    stock.events(None, date(2026, 3, 16), **stranger)
    (row,) = checked(stock).problems
    assert (row["problem"], row["type"], row["client"], row["reason"]) == (
        "of no client",
        "unknown",
        "main 107",
        "",
    )


def test_twelve_of_each_kind_are_shown_and_the_others_counted(stock: Stock) -> None:
    stock.clients("Birch")
    stock.events("birch", TODAY, 1, status="set_aside")
    stock.events("acme", TODAY, 14, status="set_aside")
    stock.events("acme", TODAY, 14, status="received")
    found = checked(stock)
    assert [it["problem"] for it in found.problems] == ["set aside"] * 12 + ["waiting"] * 12
    assert found.more == 5
    assert found.clients == ["acme", "birch"]
    assert {it["client"] for it in found.problems} == {"acme"}


def test_events_of_an_inactive_client_are_no_problem(stock: Stock) -> None:
    stock.events("gone", TODAY, status="received")
    assert checked(stock).passed
