"""From a problem to people: the failed check, one alert, no second one, and its end.

Each problem is made for real, with a gateway and an Email Bison at work; only the hours are handed
in.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from dagster._core.scheduler.instigation import InstigatorType
from dagster._daemon.types import DaemonHeartbeat
from sqlalchemy import URL

from kpi_pipeline.alerts.summary import read_summary, summary_text
from kpi_pipeline.checks.outcome import Check
from kpi_pipeline.db.engine import open_engine
from kpi_pipeline.inbox.ingest import inbox_of
from kpi_pipeline.inbox.replay import replay
from kpi_pipeline_tests.bison_sandbox.running import Stage
from kpi_pipeline_tests.databases import another_database
from kpi_pipeline_tests.end_to_end.alarms import Alarms, open_alarms
from kpi_pipeline_tests.orchestration.ticks import leave_tick

pytestmark = pytest.mark.runs


@pytest.fixture(scope="module")
def watched(postgres: URL, stage: Stage) -> Iterator[Alarms]:
    with another_database(postgres) as url:
        engine = open_engine(url)
        with open_alarms(engine, stage) as alarms:
            yield alarms
        engine.dispose()


@pytest.fixture
def alarms(watched: Alarms) -> Alarms:
    watched.forget()
    watched.sync(0)
    return watched


@pytest.mark.long
def test_a_schedule_that_was_stopped_is_seen_and_told_until_it_is_on_again(alarms: Alarms) -> None:
    name = "clean_up_runs"
    repository = alarms.definitions.get_repository_def()
    for schedule in repository.schedule_defs:
        leave_tick(alarms.instance, schedule.name)
    for sensor in repository.sensor_defs:
        leave_tick(alarms.instance, sensor.name, kind=InstigatorType.SENSOR)
    now = datetime.now(UTC).timestamp()
    for kind in alarms.instance.get_required_daemon_types():
        alarms.instance.add_daemon_heartbeat(DaemonHeartbeat(now, kind, "one", None))
    assert alarms.checked(Check.AUTOMATION_ALIVE, 0).passed
    leave_tick(alarms.instance, name, on=False)

    # In an hour's time, everything would be late.
    seen = alarms.follow(Check.AUTOMATION_ALIVE, 0, "ERROR", every=0.001)

    assert f"schedule {name}" in seen.description
    leave_tick(alarms.instance, name)
    alarms.recovered(Check.AUTOMATION_ALIVE, 0.01)


def test_numbers_that_nobody_refreshes_turn_stale_late_then_too_late(alarms: Alarms) -> None:
    assert alarms.checked(Check.FRESHNESS, 2.9).passed
    seen = alarms.follow(Check.FRESHNESS, 3.2, "WARN")
    assert "0 of 8 clients fresh" in seen.description
    assert "its numbers are 3 h" in seen.problems

    assert alarms.checked(Check.FRESHNESS, 6.2).severity == "ERROR"
    alarms.evaluate(6.2)
    assert alarms.told(Check.FRESHNESS) == ["WARN", "WORSE, ERROR"]

    alarms.sync(6.5)
    alarms.recovered(Check.FRESHNESS, 6.6)


@pytest.mark.long
def test_deleted_facts_are_missing_days_until_they_are_fetched_again(alarms: Alarms) -> None:
    agency = alarms.agency
    lost = agency.keyed[0]
    day = alarms.today - timedelta(days=9)
    alarms.sql(
        "DELETE FROM raw_bison_stats WHERE workspace = :lost AND date BETWEEN :day AND :next",
        lost=lost,
        day=day,
        next=day + timedelta(days=1),
    )
    seen = alarms.follow(Check.NO_MISSING_DAYS, 0, "ERROR")
    assert f"2 days missing ({lost})" in seen.description
    assert f"{day} to {day + timedelta(days=1)}" in seen.problems
    alarms.sync(0.6, 9, 8, clients=[lost])
    alarms.recovered(Check.NO_MISSING_DAYS, 0.7)


@pytest.mark.long
def test_a_row_that_is_not_there_is_told_as_n_of_m(alarms: Alarms) -> None:
    lost = alarms.agency.keyed[0]
    day = alarms.today - timedelta(days=5)
    statement = "DELETE FROM client_metrics WHERE workspace = :lost AND metric_date = :day"
    alarms.sql(statement, lost=lost, day=day)
    seen = alarms.follow(Check.COMPLETE, 0, "ERROR")
    assert "8 of 8 clients and 319 of 320 days have a row" in seen.description
    alarms.sync(0.6, 5, clients=[lost])
    alarms.recovered(Check.COMPLETE, 0.7)


@pytest.mark.long
def test_two_clients_with_the_same_totals_are_told_as_impossible(alarms: Alarms) -> None:
    odd = alarms.checked(Check.PLAUSIBLE, 0).problems
    others = [key for key in alarms.agency.workspaces if f'"{key}"' in odd]
    # Who has had no lead for a week, by the sandbox's chance, would fail the check all along.
    with alarms.inactive(others):
        _same_totals(alarms, others)


def _same_totals(alarms: Alarms, others: Sequence[str]) -> None:
    agency = alarms.agency
    first, second = [it for it in agency.workspaces if it not in others and agency.key(it)][:2]
    # What a key that answers for another client would bring, if it were believed.
    alarms.sql(
        """UPDATE raw_bison_stats b SET sent = a.sent, replied = a.replied, bounced = a.bounced,
            interested = a.interested, unsubscribed = a.unsubscribed
        FROM raw_bison_stats a
        WHERE a.workspace = :first AND b.workspace = :second AND a.date = b.date""",
        first=first,
        second=second,
    )
    seen = alarms.follow(Check.PLAUSIBLE, 0, "ERROR")
    assert "in 30 days as" in seen.problems
    assert first in seen.problems
    assert second in seen.problems
    alarms.sync(0.6, *range(35), clients=[second])
    alarms.recovered(Check.PLAUSIBLE, 0.7)


@pytest.mark.long
def test_a_total_that_email_bison_changed_is_told_with_both_numbers(alarms: Alarms) -> None:
    agency = alarms.agency
    changed = agency.keyed[0]
    alarms.sync(0, *range(31))
    fault = {
        "kind": "edit",
        "path": "/workspaces/v1.1/stats",
        "workspace_id": agency.ids[changed],
        "pointer": "/data/interested",
        "value": "4321",
    }
    alarms.control("POST", "faults", fault)
    try:
        seen = alarms.follow(Check.TOTALS_MATCH_BISON, 0, "WARN")
    finally:
        alarms.control("DELETE", "faults")
    assert "7 of 8 clients match Email Bison's own totals" in seen.description
    assert "4321" in seen.problems
    alarms.recovered(Check.TOTALS_MATCH_BISON, 0.6)


def test_a_rejected_key_is_told_and_so_is_one_of_another_client(alarms: Alarms) -> None:
    agency = alarms.agency
    rejected, other = agency.keyed[:2]
    alarms.control("POST", "keys/revoke", {"workspace_id": agency.ids[rejected]})
    try:
        seen = alarms.follow(Check.REGISTRY_MATCHES_BISON, 0, "ERROR")
    finally:
        alarms.control("POST", "keys/restore", {"workspace_id": agency.ids[rejected]})
    assert rejected in seen.problems
    assert "kpi keys rotate" in seen.description
    alarms.recovered(Check.REGISTRY_MATCHES_BISON, 0.6)

    alarms.forget()
    ids = agency.ids[rejected], agency.ids[other]
    alarms.control("POST", "keys/move", {"workspace_id": ids[0], "to": ids[1]})
    try:
        seen = alarms.follow(Check.REGISTRY_MATCHES_BISON, 0, "ERROR")
    finally:
        alarms.control("POST", "keys/move", {"workspace_id": ids[0], "to": ids[0]})
    assert str(ids[1]) in seen.problems
    alarms.recovered(Check.REGISTRY_MATCHES_BISON, 0.6)


@pytest.mark.long
def test_webhooks_that_are_refused_are_told_once_email_bison_counts_leads(
    alarms: Alarms,
) -> None:
    alarms.sql("DELETE FROM webhook_events")
    lead = _leads(alarms, 1)
    assert alarms.deliver(*lead) == [200]
    # As if it had come yesterday: from today on, webhooks are expected.
    alarms.sql(
        "UPDATE webhook_events SET arrived_at = arrived_at - interval '1 day', "
        "business_date = business_date - 1"
    )
    missed = _leads(alarms, 4)
    assert alarms.deliver(*missed, secret="x" * 40) == [404] * 4
    alarms.sync(0)

    seen = alarms.follow(Check.WEBHOOKS_DELIVERED, 0.3, "ERROR")

    assert "no webhook of any client of main reports one" in seen.description
    assert alarms.deliver(*missed) == [200] * 4
    alarms.recovered(Check.WEBHOOKS_DELIVERED, 0.9)


@pytest.mark.long
def test_an_event_that_is_set_aside_is_told_until_it_is_replayed(alarms: Alarms) -> None:
    agency = alarms.agency
    assert alarms.deliver(*_leads(alarms, 1)) == [200]
    alarms.sql(
        "UPDATE webhook_events SET status = 'set_aside', reason = 'tried five times' "
        "WHERE id = (SELECT max(id) FROM webhook_events)"
    )
    seen = alarms.follow(Check.EVENTS_APPLIED, 0, "WARN")
    assert "1 set aside" in seen.description
    assert "tried five times" in seen.problems
    inbox = inbox_of(agency.app, realtime=True)
    replay(inbox)
    alarms.recovered(Check.EVENTS_APPLIED, 0.6)


def test_no_check_no_alert_and_no_summary_shows_a_key_or_a_leads_personal_data(
    alarms: Alarms,
) -> None:
    agency = alarms.agency
    (body,) = _leads(alarms, 1)
    alarms.deliver(body)
    alarms.control("POST", "keys/revoke", {"workspace_id": agency.ids[agency.keyed[0]]})
    alarms.sql(
        "UPDATE webhook_events SET status = 'set_aside' WHERE id = (SELECT max(id) FROM "
        "webhook_events)"
    )
    try:
        seen = [alarms.checked(check, 0) for check in Check]
    finally:
        alarms.control("POST", "keys/restore", {"workspace_id": agency.ids[agency.keyed[0]]})
        alarms.sql("UPDATE webhook_events SET status = 'applied' WHERE status = 'set_aside'")
    alarms.evaluate(0)
    app = alarms.app(0)
    with app.engine.connect() as connection:
        summary = summary_text(read_summary(connection, app.today()), app.timezone)
    shown = str(seen) + summary.body + str([it.text for it in alarms.receiver.received])
    private = [str(value) for value in json.loads(body)["data"]["lead"].values() if value]
    keys = [agency.bison.master_key, *(agency.key(it) for it in agency.keyed)]
    hidden = [*(str(key).split("|")[1] for key in keys), alarms.webhook_secret]
    hidden += [it for it in private if "@" in it or len(it) > 12]
    assert len(alarms.receiver.received) > 0
    assert [it for it in hidden if it in shown] == []


def _leads(alarms: Alarms, number: int) -> list[str]:
    """Leads that turn interested now, and whose webhooks nobody has delivered yet."""
    agency = alarms.agency
    body = {"workspace_id": agency.ids[agency.keyed[0]], "leads": number, "deliver": False}
    answer = alarms.control("POST", "mark-interested", body).json()
    return [json.dumps(it) for it in answer["events"]]
