"""From trouble to people: the check on the page, one alert, no second one, and its end.

Each trouble is made for real, with a page, a daemon, a gateway and an Email Bison at work; only the
hours are handed in.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import URL

from kpi_pipeline.alerts.summary import read_summary, summary_text
from kpi_pipeline.checks.outcome import Check
from kpi_pipeline.inbox.ingest import inbox_of
from kpi_pipeline.inbox.replay import replay
from kpi_pipeline_tests.alerts.support import json_url
from kpi_pipeline_tests.bison_sandbox.receiver import Receiver, receiving
from kpi_pipeline_tests.end_to_end.agency import Agency
from kpi_pipeline_tests.end_to_end.alarms import Alarms, lively_agency, sync, watching
from kpi_pipeline_tests.end_to_end.schedules import (
    rounds_on,
    start_schedule,
    stop_rounds,
    stop_schedule,
)

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def watched(
    postgres: URL, administer: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Agency, Receiver]]:
    """Eight clients, filled for 40 days, with all at work but rounds of checks; who is told."""
    state = tmp_path_factory.mktemp("alarms")
    with receiving() as receiver:
        told = (SecretStr(json_url(receiver.url)),)
        with lively_agency(postgres, administer, state, 8, alert_urls=told) as agency:
            stop_rounds(agency.page)
            sync(agency.app, agency.grid, range(41))
            yield agency, receiver


@pytest.fixture
def alarms(watched: tuple[Agency, Receiver]) -> Iterator[Alarms]:
    with watching(*watched) as alarms:
        alarms.forget()
        alarms.sync(0)
        yield alarms


def client(agency: Agency, place: int = 0) -> str:
    """A client with a key of its own."""
    return [key for key in agency.grid if agency.own_key(key)][place]


def test_a_schedule_that_was_stopped_is_seen_and_told_until_it_is_on_again(alarms: Alarms) -> None:
    name = "clean_up_runs"
    page = alarms.agency.page
    with rounds_on(page):
        alarms.agency.poll(
            lambda: _passes(alarms, Check.AUTOMATION_ALIVE), "the first tick of everything", 90, 2
        )
        alarms.forget()
        stop_schedule(page, name)

        # In an hour's time, everything would be late.
        seen = alarms.follow(Check.AUTOMATION_ALIVE, 0, "ERROR", every=0.001)

        assert f"schedule {name}" in seen.description
        start_schedule(page, name)
        alarms.recovered(Check.AUTOMATION_ALIVE, 0.01)


def test_numbers_that_nobody_refreshes_turn_stale_late_then_too_late(alarms: Alarms) -> None:
    assert alarms.checked(Check.FRESHNESS, 2.9).status == "SUCCEEDED"
    seen = alarms.follow(Check.FRESHNESS, 3.2, "WARN")
    assert "0 of 8 clients fresh" in seen.description
    assert "its numbers are 3 h" in seen.offenders

    assert alarms.checked(Check.FRESHNESS, 6.2).severity == "ERROR"
    alarms.look(6.2)
    assert alarms.told(Check.FRESHNESS) == ["WARN", "WORSE, ERROR"]

    alarms.sync(6.5)
    alarms.recovered(Check.FRESHNESS, 6.6)


def test_deleted_facts_are_missing_days_until_they_are_fetched_again(alarms: Alarms) -> None:
    agency = alarms.agency
    lost = client(agency)
    day = agency.today - timedelta(days=9)
    alarms.sql(
        "DELETE FROM raw_bison_stats WHERE workspace = :lost AND date BETWEEN :day AND :next",
        lost=lost,
        day=day,
        next=day + timedelta(days=1),
    )
    seen = alarms.follow(Check.NO_MISSING_DAYS, 0, "ERROR")
    assert f"2 days missing ({lost})" in seen.description
    assert f"{day} to {day + timedelta(days=1)}" in seen.offenders
    alarms.sync(0.6, 9, 8, clients=[lost])
    alarms.recovered(Check.NO_MISSING_DAYS, 0.7)


def test_a_row_that_is_not_there_is_told_as_n_of_m(alarms: Alarms) -> None:
    lost = client(alarms.agency)
    day = alarms.agency.today - timedelta(days=5)
    statement = "DELETE FROM client_metrics WHERE workspace = :lost AND metric_date = :day"
    alarms.sql(statement, lost=lost, day=day)
    seen = alarms.follow(Check.COMPLETE, 0, "ERROR")
    assert "8 of 8 clients and 319 of 320 days have a row" in seen.description
    alarms.sync(0.6, 5, clients=[lost])
    alarms.recovered(Check.COMPLETE, 0.7)


def test_two_clients_with_the_same_totals_are_told_as_impossible(alarms: Alarms) -> None:
    odd = alarms.checked(Check.PLAUSIBLE, 0).offenders
    others = [key for key in alarms.agency.grid if f'"{key}"' in odd]
    # Who has had no lead for a week, by the sandbox's chance, would fail the check all along.
    with alarms.inactive(others):
        _same_totals(alarms, others)


def _same_totals(alarms: Alarms, others: Sequence[str]) -> None:
    agency = alarms.agency
    first, second = [it for it in agency.grid if it not in others and agency.own_key(it)][:2]
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
    assert "in 30 days as" in seen.offenders
    assert first in seen.offenders
    assert second in seen.offenders
    alarms.sync(0.6, *range(35), clients=[second])
    alarms.recovered(Check.PLAUSIBLE, 0.7)


def test_a_total_that_email_bison_changed_is_told_with_both_numbers(alarms: Alarms) -> None:
    agency = alarms.agency
    changed = client(agency)
    alarms.sync(0, *range(31))
    fault = {
        "kind": "edit",
        "path": "/workspaces/v1.1/stats",
        "workspace_id": agency.ids[changed],
        "pointer": "/data/interested",
        "value": "4321",
    }
    agency.control("POST", "faults", fault)
    try:
        seen = alarms.follow(Check.TOTALS_MATCH_BISON, 0, "WARN")
    finally:
        agency.control("DELETE", "faults")
    assert "7 of 8 clients add up to Email Bison's own totals" in seen.description
    assert "4321" in seen.offenders
    alarms.recovered(Check.TOTALS_MATCH_BISON, 0.6)


def test_a_rejected_key_is_told_and_so_is_one_of_another_client(alarms: Alarms) -> None:
    agency = alarms.agency
    rejected, other = client(agency, 0), client(agency, 1)
    agency.control("POST", "keys/revoke", {"workspace_id": agency.ids[rejected]})
    try:
        seen = alarms.follow(Check.REGISTRY_MATCHES_BISON, 0, "ERROR")
    finally:
        agency.control("POST", "keys/restore", {"workspace_id": agency.ids[rejected]})
    assert rejected in seen.offenders
    assert "kpi keys rotate" in seen.description
    alarms.recovered(Check.REGISTRY_MATCHES_BISON, 0.6)

    alarms.forget()
    ids = agency.ids[rejected], agency.ids[other]
    agency.control("POST", "keys/move", {"workspace_id": ids[0], "to": ids[1]})
    try:
        seen = alarms.follow(Check.REGISTRY_MATCHES_BISON, 0, "ERROR")
    finally:
        agency.control("POST", "keys/move", {"workspace_id": ids[0], "to": ids[0]})
    assert str(ids[1]) in seen.offenders
    alarms.recovered(Check.REGISTRY_MATCHES_BISON, 0.6)


def test_webhooks_that_are_refused_are_told_once_email_bison_counts_leads(
    alarms: Alarms,
) -> None:
    agency = alarms.agency
    alarms.sql("DELETE FROM webhook_events")
    lead = _leads(agency, 1)
    assert _post(agency, *lead) == [200]
    # As if it had come yesterday: from today on, webhooks are expected.
    alarms.sql(
        "UPDATE webhook_events SET arrived_at = arrived_at - interval '1 day', "
        "business_date = business_date - 1"
    )
    missed = _leads(agency, 4)
    assert _post(agency, *missed, secret="x" * 40) == [404] * 4
    alarms.sync(0)

    seen = alarms.follow(Check.WEBHOOKS_DELIVERED, 0.3, "ERROR")

    assert "no webhook of any client of main reports one" in seen.description
    assert _post(agency, *missed) == [200] * 4
    alarms.recovered(Check.WEBHOOKS_DELIVERED, 0.9)


def test_an_event_that_is_set_aside_is_told_until_it_is_replayed(alarms: Alarms) -> None:
    agency = alarms.agency
    assert _post(agency, *_leads(agency, 1)) == [200]
    alarms.sql(
        "UPDATE webhook_events SET status = 'set_aside', reason = 'tried five times' "
        "WHERE id = (SELECT max(id) FROM webhook_events)"
    )
    seen = alarms.follow(Check.EVENTS_APPLIED, 0, "WARN")
    assert "1 set aside" in seen.description
    assert "tried five times" in seen.offenders
    inbox = inbox_of(agency.app, realtime=True)
    replay(inbox)
    alarms.recovered(Check.EVENTS_APPLIED, 0.6)


def test_no_check_no_alert_and_no_summary_shows_a_key_or_a_leads_personal_data(
    alarms: Alarms,
) -> None:
    agency = alarms.agency
    (body,) = _leads(agency, 1)
    _post(agency, body)
    agency.control("POST", "keys/revoke", {"workspace_id": agency.ids[client(agency)]})
    alarms.sql(
        "UPDATE webhook_events SET status = 'set_aside' WHERE id = (SELECT max(id) FROM "
        "webhook_events)"
    )
    try:
        seen = [alarms.checked(check, 0) for check in Check]
    finally:
        agency.control("POST", "keys/restore", {"workspace_id": agency.ids[client(agency)]})
        alarms.sql("UPDATE webhook_events SET status = 'applied' WHERE status = 'set_aside'")
    alarms.look(0)
    app = alarms.app(0)
    with app.engine.connect() as connection:
        summary = summary_text(read_summary(connection, app.today()), app.timezone)
    shown = str(seen) + summary.body + str([it.text for it in alarms.receiver.received])
    private = [str(value) for value in json.loads(body)["data"]["lead"].values() if value]
    hidden = [*agency.secrets(), *(it for it in private if "@" in it or len(it) > 12)]
    hidden += [it.get_secret_value() for it in agency.app.settings.webhook_secret.values()]
    assert len(alarms.receiver.received) > 0
    assert [it for it in hidden if it in shown] == []


def _leads(agency: Agency, number: int) -> list[str]:
    """Leads that turn interested now, and whose webhooks nobody has delivered yet."""
    body = {"workspace_id": agency.ids[client(agency)], "leads": number, "deliver": False}
    answer = agency.control("POST", "mark-interested", body).json()
    return [json.dumps(it) for it in answer["events"]]


def _post(agency: Agency, *bodies: str, secret: str | None = None) -> list[int]:
    known = agency.app.settings.webhook_secret["main"].get_secret_value()
    url = f"{agency.gateway}/webhooks/bison/{secret or known}"
    return [httpx.post(url, content=it, timeout=30).status_code for it in bodies]


def _passes(alarms: Alarms, check: Check) -> bool:
    return alarms.checked(check, 0).status == "SUCCEEDED"
