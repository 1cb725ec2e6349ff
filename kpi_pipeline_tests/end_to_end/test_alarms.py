"""From a problem to people: the failed check, one alert, no second one, and its end.

Each problem is real, with a gateway and an Email Bison at work; only the hours are invented: they
count from the start of the module.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from dagster._core.scheduler.instigation import InstigatorType
from dagster._daemon.types import DaemonHeartbeat
from sqlalchemy import URL

from kpi_pipeline.alerts.summary import read_summary, summary_text
from kpi_pipeline.checks.outcome import Check
from kpi_pipeline.inbox.ingest import inbox_of
from kpi_pipeline.inbox.replay import replay
from kpi_pipeline_tests.bison_sandbox.running import Stage
from kpi_pipeline_tests.end_to_end.alarms import SECRET, Alarms, filled_alarms, problems_of
from kpi_pipeline_tests.orchestration.ticks import leave_tick

pytestmark = pytest.mark.runs


@pytest.fixture(scope="module")
def filled(postgres: URL, stage: Stage) -> Iterator[Alarms]:
    with filled_alarms(postgres, stage) as alarms:
        yield alarms


@pytest.fixture
def alarms(filled: Alarms) -> Alarms:
    filled.forget()
    filled.sync(0)
    return filled


@pytest.mark.long
def test_a_schedule_that_is_stopped_is_alerted_until_it_is_on_again(alarms: Alarms) -> None:
    name = "clean_up_runs"
    repository = alarms.definitions.get_repository_def()
    for schedule in repository.schedule_defs:
        leave_tick(alarms.instance, schedule.name)
    for sensor in repository.sensor_defs:
        leave_tick(alarms.instance, sensor.name, kind=InstigatorType.SENSOR)
    now = datetime.now(UTC).timestamp()
    for kind in alarms.instance.get_required_daemon_types():
        alarms.instance.add_daemon_heartbeat(DaemonHeartbeat(now, kind, "one", None))
    assert alarms.check(0, Check.AUTOMATION_ALIVE).passed
    leave_tick(alarms.instance, name, on=False)

    # In an hour's time, everything would be late.
    outcome = alarms.assert_alerted_once(Check.AUTOMATION_ALIVE, "ERROR", every=0.001)

    assert f"schedule {name}" in str(outcome.description)
    leave_tick(alarms.instance, name)
    alarms.assert_resolved(Check.AUTOMATION_ALIVE, 0.01)


def test_numbers_without_a_refresh_are_a_warning_and_then_an_error(alarms: Alarms) -> None:
    assert alarms.check(0.7, Check.FRESHNESS).passed
    # After three refreshes of a quarter of an hour.
    outcome = alarms.assert_alerted_once(Check.FRESHNESS, "WARN", 0.8, every=0.1)
    assert "0 of 8 clients fresh" in str(outcome.description)
    assert "its numbers are 4" in problems_of(outcome)

    assert alarms.check(2, Check.FRESHNESS).severity.value == "ERROR"
    alarms.alert(2)
    assert alarms.notices(Check.FRESHNESS) == ["WARN", "WORSE, ERROR"]

    alarms.sync(2.1)
    alarms.assert_resolved(Check.FRESHNESS, 2.2)


@pytest.mark.long
def test_deleted_facts_are_missing_days_until_they_are_fetched_again(alarms: Alarms) -> None:
    agency = alarms.agency
    lost = agency.keyed[0]
    day = alarms.today - timedelta(days=9)
    agency.sql(
        "DELETE FROM raw_bison_stats WHERE workspace = :lost AND date BETWEEN :day AND :next",
        lost=lost,
        day=day,
        next=day + timedelta(days=1),
    )
    outcome = alarms.assert_alerted_once(Check.NO_MISSING_DAYS, "ERROR")
    assert f"2 days missing ({lost})" in str(outcome.description)
    assert f"{day} to {day + timedelta(days=1)}" in problems_of(outcome)
    alarms.sync(0.6, 9, 8, clients=[lost])
    alarms.assert_resolved(Check.NO_MISSING_DAYS, 0.7)


@pytest.mark.long
def test_a_missing_row_is_reported_as_n_of_m(alarms: Alarms) -> None:
    agency = alarms.agency
    lost = agency.keyed[0]
    day = alarms.today - timedelta(days=5)
    statement = "DELETE FROM client_metrics WHERE workspace = :lost AND metric_date = :day"
    agency.sql(statement, lost=lost, day=day)
    outcome = alarms.assert_alerted_once(Check.COMPLETE, "ERROR")
    assert "8 of 8 clients and 319 of 320 days have a row" in str(outcome.description)
    alarms.sync(0.6, 5, clients=[lost])
    alarms.assert_resolved(Check.COMPLETE, 0.7)


@pytest.mark.long
def test_two_clients_with_the_same_totals_are_an_error(alarms: Alarms) -> None:
    agency = alarms.agency
    # Who has had no lead for a week, by the sandbox's chance, would fail the check all along.
    odd = problems_of(alarms.check(0, Check.PLAUSIBLE))
    others = [it for it in agency.workspaces if repr(it) in odd]
    first, second = [it for it in agency.keyed if it not in others][:2]
    agency.sql("UPDATE clients SET active = false WHERE workspace = ANY(:others)", others=others)
    # The facts that a key which answers for another client would bring.
    agency.sql(
        """UPDATE raw_bison_stats b SET sent = a.sent, replied = a.replied, bounced = a.bounced,
            interested = a.interested, unsubscribed = a.unsubscribed
        FROM raw_bison_stats a
        WHERE a.workspace = :first AND b.workspace = :second AND a.date = b.date""",
        first=first,
        second=second,
    )
    problems = problems_of(alarms.assert_alerted_once(Check.PLAUSIBLE, "ERROR"))
    assert all(it in problems for it in ("in 30 days as", first, second))
    alarms.sync(0.6, *range(35), clients=[second])
    alarms.assert_resolved(Check.PLAUSIBLE, 0.7)


@pytest.mark.long
def test_a_total_that_email_bison_changed_is_reported_with_both_numbers(alarms: Alarms) -> None:
    agency = alarms.agency
    changed = agency.keyed[0]
    alarms.sync(0, *range(31))
    total = {"path": "/workspaces/v1.1/stats", "pointer": "/data/interested", "value": "4321"}
    agency.bison.fault("edit", workspace_id=agency.ids[changed], **total)
    outcome = alarms.assert_alerted_once(Check.TOTALS_MATCH_BISON, "WARN")
    agency.control("DELETE", "faults")
    assert "7 of 8 clients match Email Bison's own totals" in str(outcome.description)
    assert "4321" in problems_of(outcome)
    alarms.assert_resolved(Check.TOTALS_MATCH_BISON, 0.6)


def test_a_rejected_key_is_reported_and_so_is_one_of_another_client(alarms: Alarms) -> None:
    agency = alarms.agency
    rejected, other = agency.keyed[:2]
    agency.revoke(rejected)
    try:
        outcome = alarms.assert_alerted_once(Check.REGISTRY_MATCHES_BISON, "ERROR")
    finally:
        agency.restore(rejected)
    assert rejected in problems_of(outcome)
    assert "kpi keys rotate" in str(outcome.description)
    alarms.assert_resolved(Check.REGISTRY_MATCHES_BISON, 0.6)

    alarms.forget()
    ids = agency.ids[rejected], agency.ids[other]
    agency.control("POST", "keys/move", workspace_id=ids[0], to=ids[1])
    try:
        outcome = alarms.assert_alerted_once(Check.REGISTRY_MATCHES_BISON, "ERROR")
    finally:
        agency.control("POST", "keys/move", workspace_id=ids[0], to=ids[0])
    assert str(ids[1]) in problems_of(outcome)
    alarms.assert_resolved(Check.REGISTRY_MATCHES_BISON, 0.6)


@pytest.mark.long
def test_webhooks_that_are_rejected_are_reported_once_email_bison_counts_leads(
    alarms: Alarms,
) -> None:
    agency = alarms.agency
    agency.sql("DELETE FROM webhook_events")
    lead = alarms.leads(1)
    assert alarms.deliver(*lead) == [200]
    # As if it had come yesterday: from today on, webhooks are expected.
    agency.sql(
        "UPDATE webhook_events SET arrived_at = arrived_at - interval '1 day', "
        "business_date = business_date - 1"
    )
    missed = alarms.leads(4)
    assert alarms.deliver(*missed, secret="x" * 40) == [404] * 4
    alarms.sync(0)

    outcome = alarms.assert_alerted_once(Check.WEBHOOKS_DELIVERED, "ERROR", 0.3)

    assert "no webhook of any client of main reports one" in str(outcome.description)
    assert alarms.deliver(*missed) == [200] * 4
    alarms.assert_resolved(Check.WEBHOOKS_DELIVERED, 0.9)


@pytest.mark.long
def test_an_event_that_is_set_aside_is_reported_until_it_is_replayed(alarms: Alarms) -> None:
    agency = alarms.agency
    assert alarms.deliver(*alarms.leads(1)) == [200]
    agency.sql(
        "UPDATE webhook_events SET status = 'set_aside', reason = 'tried five times' "
        "WHERE id = (SELECT max(id) FROM webhook_events)"
    )
    outcome = alarms.assert_alerted_once(Check.EVENTS_APPLIED, "WARN")
    assert "1 event set aside" in str(outcome.description)
    assert "tried five times" in problems_of(outcome)
    replay(inbox_of(agency.app, realtime=True))
    alarms.assert_resolved(Check.EVENTS_APPLIED, 0.6)


def test_no_check_no_alert_and_no_summary_shows_a_key_or_a_leads_personal_data(
    alarms: Alarms,
) -> None:
    agency = alarms.agency
    (body,) = alarms.leads(1)
    alarms.deliver(body)
    agency.revoke(agency.keyed[0])
    agency.sql(
        "UPDATE webhook_events SET status = 'set_aside' WHERE id = (SELECT max(id) FROM "
        "webhook_events)"
    )
    try:
        outcomes = [alarms.check(0, check) for check in Check]
        problems = [problems_of(it) for it in outcomes]
    finally:
        agency.restore(agency.keyed[0])
        agency.sql("UPDATE webhook_events SET status = 'applied' WHERE status = 'set_aside'")
    alarms.alert(0)
    app = alarms.app(0)
    with app.engine.connect() as connection:
        summary = summary_text(read_summary(connection, app.today()), app.timezone, app.day_zone)
    shown = str([outcomes, problems, summary.body, *(it.text for it in alarms.receiver.received)])
    private = [str(value) for value in json.loads(body)["data"]["lead"].values() if value]
    keys = [agency.bison.master_key, *(agency.key(it) for it in agency.keyed)]
    hidden = [*(str(key).split("|")[1] for key in keys), SECRET]
    hidden += [it for it in private if "@" in it or len(it) > 12]
    assert len(alarms.receiver.received) > 0
    assert [it for it in hidden if it in shown] == []
