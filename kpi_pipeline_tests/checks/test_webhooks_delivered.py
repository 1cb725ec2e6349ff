"""The check `webhooks_delivered`: leads that events report, against those that Bison counts."""

from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from kpi_pipeline.checks.outcome import Outcome, Severity
from kpi_pipeline.checks.webhook_events import webhooks_delivered
from kpi_pipeline_tests.checks.support import (
    CHICAGO,
    ONE_DAY,
    TODAY,
    YESTERDAY,
    Stock,
    local,
    problems,
)

MONDAY = date(2026, 3, 16)
# The first of the seven days that end on YESTERDAY.
FIRST = date(2026, 3, 11)
NOW = local(TODAY, 15)


def checked(
    stock: Stock,
    instances: Collection[str] = ("main",),
    *,
    now: datetime = NOW,
    until: date = YESTERDAY,
) -> Outcome:
    with stock.engine.connect() as connection:
        return webhooks_delivered(connection, instances, now=now, timezone=CHICAGO, until=until)


@pytest.fixture(autouse=True)
def _heard_of(stock: Stock) -> None:
    """Two clients with webhooks since long ago; one lead of Acme was delivered each day."""
    stock.clients("Acme", "Birch")
    stock.clients("Other", instance="second")
    stock.events("acme", date(2026, 2, 1))
    for day in range(9, 18):
        stock.facts("acme", date(2026, 3, day), interested=1)
        stock.facts("birch", date(2026, 3, day))
        stock.events("acme", date(2026, 3, day))


def differing(stock: Stock) -> list[tuple[str, str, str]]:
    found = checked(stock)
    assert found.severity is Severity.WARN
    return [(str(it["workspace"]), str(it["day"]), str(it["problem"])) for it in found.problems]


def test_it_passes_and_says_so_when_no_webhooks_are_set_up(stock: Stock) -> None:
    stock.facts("birch", YESTERDAY, interested=9)
    found = checked(stock, ())
    assert found.passed
    assert found.description == ("No instance has a KPI_WEBHOOK_SECRET, so no webhooks are set up.")


def test_it_passes_when_webhooks_delivered_every_lead(stock: Stock) -> None:
    found = checked(stock)
    assert found.passed
    assert found.description == "Webhooks delivered every positive reply that Email Bison counted."
    assert found.numbers == {"differing": 0}


def test_a_lead_that_was_not_delivered_is_named_with_both_numbers(stock: Stock) -> None:
    stock.facts("birch", MONDAY, interested=3)
    stock.events("birch", MONDAY, 2)
    found = checked(stock)
    assert found.severity is Severity.WARN
    assert found.problems == [
        {
            "workspace": "birch",
            "instance": "main",
            "day": "2026-03-16",
            "counted": 3,
            "delivered": 2,
            "problem": "1 positive reply not delivered",
        }
    ]
    assert found.description.startswith(
        "Webhooks and Email Bison differ for birch. The numbers are right, as the facts"
    )
    assert "`kpi events list`" in found.description


def test_leads_that_bison_does_not_count_are_named_too(stock: Stock) -> None:
    stock.events("acme", MONDAY, 2)
    assert differing(stock) == [
        ("acme", "2026-03-16", "2 positive replies delivered, but not counted")
    ]


@pytest.mark.parametrize("told_on", [MONDAY - ONE_DAY, MONDAY + ONE_DAY])
def test_a_lead_on_an_adjacent_day_is_no_difference(stock: Stock, told_on: date) -> None:
    stock.facts("birch", MONDAY, interested=1)
    stock.events("birch", told_on)
    assert checked(stock).passed


def test_a_lead_two_days_away_is_another_lead(stock: Stock) -> None:
    stock.facts("birch", MONDAY, interested=1)
    stock.events("birch", MONDAY - 2 * ONE_DAY)
    assert differing(stock) == [
        ("birch", "2026-03-14", "1 positive reply delivered, but not counted"),
        ("birch", "2026-03-16", "1 positive reply not delivered"),
    ]


def test_leads_beyond_those_of_the_adjacent_day_are_still_missing(stock: Stock) -> None:
    stock.facts("birch", MONDAY, interested=3)
    stock.events("birch", YESTERDAY)
    assert differing(stock) == [("birch", "2026-03-16", "2 positive replies not delivered")]


def test_leads_that_bison_dates_one_day_later_every_day_are_no_difference(
    stock: Stock,
) -> None:
    for day in (13, 14, 15):
        stock.events("birch", date(2026, 3, day))
        stock.facts("birch", date(2026, 3, day) + ONE_DAY, interested=1)
    assert checked(stock).passed


def test_a_lead_of_the_last_closed_day_that_bison_counts_today_is_no_difference(
    stock: Stock,
) -> None:
    stock.events("birch", YESTERDAY)
    stock.facts("birch", TODAY, interested=1, as_of=local(TODAY, 14))
    assert checked(stock).passed


def test_a_lead_of_the_first_day_that_was_delivered_the_day_before_is_no_difference(
    stock: Stock,
) -> None:
    stock.facts("birch", FIRST, interested=1)
    stock.events("birch", FIRST - ONE_DAY)
    assert checked(stock).passed


def test_days_up_to_that_of_the_first_webhook_are_not_compared(stock: Stock) -> None:
    stock.facts("other", FIRST, YESTERDAY, interested=2)
    stock.events("other", MONDAY, instance="second", arrived_at=local(MONDAY, 15))
    stock.events("other", YESTERDAY, instance="second")
    found = checked(stock, ("main", "second"))
    assert problems(found, "day") == [("other", "2026-03-17")]


def test_only_the_last_seven_closed_days_are_compared(stock: Stock) -> None:
    stock.facts("birch", FIRST - ONE_DAY, interested=5)
    assert checked(stock).passed
    stock.facts("birch", FIRST, interested=5)
    assert differing(stock) == [("birch", "2026-03-11", "5 positive replies not delivered")]


def test_facts_that_were_requested_before_the_day_ended_are_not_compared(stock: Stock) -> None:
    midnight = local(YESTERDAY)
    stock.facts("birch", MONDAY, interested=5, as_of=midnight - timedelta(seconds=1))
    assert checked(stock).passed
    stock.facts("birch", MONDAY, interested=5, as_of=midnight)
    assert differing(stock) == [("birch", "2026-03-16", "5 positive replies not delivered")]


def test_the_day_of_23_hours_is_compared_from_its_own_midnight_on(stock: Stock) -> None:
    sunday, monday = date(2026, 3, 8), date(2026, 3, 9)
    stock.facts("birch", sunday, interested=5, as_of=datetime(2026, 3, 9, 4, 59, tzinfo=UTC))
    assert checked(stock, now=local(monday, 15), until=sunday).passed
    stock.facts("birch", sunday, interested=5, as_of=datetime(2026, 3, 9, 5, 0, tzinfo=UTC))
    found = checked(stock, now=local(monday, 15), until=sunday)
    assert problems(found, "day") == [("birch", "2026-03-08")]


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"source": "file"}, id="from a file"),
        pytest.param({"source": "function"}, id="from the database's function"),
        pytest.param({"status": "received"}, id="not applied yet"),
        pytest.param({"status": "set_aside"}, id="set aside"),
    ],
)
def test_an_event_counts_as_delivered_however_it_arrived(
    stock: Stock, changed: dict[str, Any]
) -> None:
    stock.facts("birch", MONDAY, interested=1)
    stock.events("birch", MONDAY, **changed)
    assert checked(stock).passed


@pytest.mark.parametrize(
    ("workspace", "changed"),
    [
        pytest.param("birch", {"metric": "sent"}, id="of another count"),
        pytest.param("birch", {"status": "invalid"}, id="not understood"),
        pytest.param("acme", {}, id="of another client"),
        pytest.param(None, {"status": "unmatched"}, id="of no client"),
    ],
)
def test_an_event_that_reports_no_lead_of_the_client_delivers_none(
    stock: Stock, workspace: str | None, changed: dict[str, Any]
) -> None:
    stock.facts("birch", MONDAY, interested=1)
    stock.events(workspace, MONDAY, **changed)
    assert ("birch", "2026-03-16", "1 positive reply not delivered") in differing(stock)


def test_inactive_clients_are_not_compared(stock: Stock) -> None:
    stock.clients("Gone", active=False)
    stock.facts("gone", FIRST, YESTERDAY, interested=4)
    assert checked(stock).passed
