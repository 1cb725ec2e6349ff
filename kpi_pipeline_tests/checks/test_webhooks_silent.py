"""The check `webhooks_delivered`: an instance whose webhooks fell silent, or never arrived."""

from collections.abc import Collection
from datetime import date, datetime, timedelta

import pytest

from kpi_pipeline.checks.outcome import Outcome, Severity
from kpi_pipeline.checks.webhook_events import webhooks_delivered
from kpi_pipeline_tests.checks.support import (
    CHICAGO,
    TODAY,
    YESTERDAY,
    Stock,
    local,
    problems,
)

MONDAY = date(2026, 3, 16)
NOW = local(TODAY, 15)
AN_HOUR_AGO = local(TODAY, 14)


@pytest.fixture(autouse=True)
def _heard_of(stock: Stock) -> None:
    """Two clients of one instance, one of another; both sent webhooks long ago."""
    stock.clients("Acme", "Birch")
    stock.clients("Other", instance="second")
    stock.events("acme", date(2026, 2, 1))
    stock.events("other", date(2026, 2, 1), instance="second")


def checked(stock: Stock, instances: Collection[str] = ("main",), now: datetime = NOW) -> Outcome:
    with stock.engine.connect() as connection:
        return webhooks_delivered(connection, instances, now=now, timezone=CHICAGO, until=YESTERDAY)


def test_three_leads_of_today_and_no_event_are_an_error(stock: Stock) -> None:
    stock.facts("acme", TODAY, interested=2, as_of=AN_HOUR_AGO)
    stock.facts("birch", TODAY, interested=1, as_of=AN_HOUR_AGO)
    found = checked(stock)
    assert found.severity is Severity.ERROR
    assert found.problems == [
        {
            "workspace": key,
            "instance": "main",
            "day": "2026-03-18",
            "counted": number,
            "delivered": 0,
            "problem": "silent",
        }
        for key, number in (("acme", 2), ("birch", 1))
    ]
    assert found.description.startswith(
        "Email Bison counts positive replies, but no webhook of any client of"
    )
    assert "`GET /healthz`" in found.description


def test_three_leads_of_today_are_silent_though_events_came_yesterday(stock: Stock) -> None:
    stock.facts("acme", YESTERDAY, interested=1)
    stock.events("acme", YESTERDAY)
    stock.facts("acme", TODAY, interested=3, as_of=AN_HOUR_AGO)
    assert checked(stock).severity is Severity.ERROR


def test_two_leads_of_today_may_be_those_that_events_reported_yesterday(stock: Stock) -> None:
    stock.facts("acme", TODAY, interested=2, as_of=AN_HOUR_AGO)
    stock.facts("birch", YESTERDAY, interested=1)
    stock.events("birch", YESTERDAY)
    assert checked(stock).passed


def test_two_leads_of_today_and_no_event_since_yesterday_are_an_error(stock: Stock) -> None:
    stock.facts("acme", TODAY, interested=2, as_of=AN_HOUR_AGO)
    assert problems(checked(stock)) == [("acme", "silent")]


def test_one_event_of_any_client_breaks_the_silence(stock: Stock) -> None:
    stock.facts("acme", TODAY, interested=9, as_of=AN_HOUR_AGO)
    stock.facts("birch", TODAY, interested=1, as_of=AN_HOUR_AGO)
    stock.events("birch", TODAY)
    assert checked(stock).passed


def test_an_event_of_a_client_without_facts_of_the_day_breaks_the_silence_too(
    stock: Stock,
) -> None:
    stock.facts("acme", TODAY, interested=9, as_of=AN_HOUR_AGO)
    stock.events("birch", TODAY)
    assert checked(stock).passed


def test_leads_that_were_counted_less_than_15_minutes_ago_are_not_judged(stock: Stock) -> None:
    stock.facts("acme", TODAY, interested=9, as_of=NOW - timedelta(minutes=15))
    assert checked(stock).passed
    assert not checked(stock, now=NOW + timedelta(seconds=1)).passed


def test_yesterdays_leads_are_judged_while_todays_are_not_settled(stock: Stock) -> None:
    stock.facts("acme", YESTERDAY, interested=3)
    stock.facts("acme", TODAY, interested=9, as_of=NOW)
    found = checked(stock)
    assert found.severity is Severity.ERROR
    assert [it["day"] for it in found.problems if it["problem"] == "silent"] == ["2026-03-17"]


def test_no_instance_is_silent_without_a_lead_of_today_or_yesterday(stock: Stock) -> None:
    stock.facts("acme", MONDAY, interested=9)
    stock.facts("acme", YESTERDAY)
    stock.facts("acme", TODAY, as_of=AN_HOUR_AGO)
    assert problems(checked(stock)) == [("acme", "9 positive replies not delivered")]


def test_only_the_silent_one_of_two_instances_fails(stock: Stock) -> None:
    stock.facts("acme", TODAY, interested=4, as_of=AN_HOUR_AGO)
    stock.events("acme", TODAY, 4)
    stock.facts("other", TODAY, interested=4, as_of=AN_HOUR_AGO)
    found = checked(stock, ("main", "second"))
    assert found.severity is Severity.ERROR
    assert [(it["instance"], it["problem"]) for it in found.problems] == [("second", "silent")]


def test_the_description_names_the_silent_instance_alone(stock: Stock) -> None:
    stock.facts("acme", TODAY, interested=4, as_of=AN_HOUR_AGO)
    stock.events("acme", TODAY, 4)
    stock.facts("other", TODAY, interested=4, as_of=AN_HOUR_AGO)
    description = checked(stock, ("main", "second")).description
    assert "no webhook of any client of second reports" in description


def test_an_instance_is_not_silent_on_the_day_of_its_first_webhook(stock: Stock) -> None:
    stock.clients("Late", instance="third")
    stock.events("late", MONDAY, instance="third", arrived_at=local(TODAY, 9))
    stock.facts("late", TODAY, interested=9, as_of=AN_HOUR_AGO)
    assert checked(stock, ("third",)).passed


def test_an_instance_that_never_sent_a_webhook_is_a_warning(stock: Stock) -> None:
    stock.clients("Late", "Later", instance="third")
    stock.facts("late", MONDAY, YESTERDAY, interested=2)
    stock.facts("later", TODAY, interested=1, as_of=AN_HOUR_AGO)
    stock.events("late", YESTERDAY, instance="third", source="file")
    stock.events("late", MONDAY, instance="third", status="test", metric=None)
    found = checked(stock, ("main", "third"))
    assert found.severity is Severity.WARN
    assert found.problems == [
        {
            "workspace": None,
            "instance": "third",
            "day": None,
            "counted": 3,
            "delivered": 0,
            "problem": "no webhook ever arrived: register them in Email Bison",
        }
    ]
    assert found.description.startswith("Webhooks and Email Bison differ for third")


def test_an_instance_without_webhooks_and_without_leads_passes(stock: Stock) -> None:
    stock.clients("Late", instance="third")
    stock.facts("late", MONDAY, interested=2)
    stock.facts("late", YESTERDAY)
    assert checked(stock, ("third",)).passed


def test_an_instance_without_a_secret_is_not_checked(stock: Stock) -> None:
    stock.facts("other", TODAY, interested=4, as_of=AN_HOUR_AGO)
    assert checked(stock, ("main",)).passed


def test_leads_of_inactive_clients_do_not_count(stock: Stock) -> None:
    stock.clients("Gone", active=False)
    stock.facts("gone", TODAY, interested=9, as_of=AN_HOUR_AGO)
    assert checked(stock).passed
