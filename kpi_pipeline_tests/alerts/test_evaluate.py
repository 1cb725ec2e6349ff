"""Evaluations over a real database and a real receiver; the test sets the clock."""

from dataclasses import replace
from datetime import timedelta

import pytest

from kpi_pipeline.alerts.wording import what_is_wrong
from kpi_pipeline.bison import KeyUse
from kpi_pipeline.bison.errors import for_key
from kpi_pipeline.db.alerts import (
    AlertState,
    LastNotice,
    Presence,
    Reason,
    mute,
    read_states,
    store_states,
)
from kpi_pipeline_tests.alerts.support import (
    START,
    Office,
    problem,
    titles,
)
from kpi_pipeline_tests.bison_sandbox.receiver import Receiver

FAILED = "ERROR: numbers are stale for acme"
RESOLVED = "RESOLVED: numbers are fresh again for acme"


def test_a_failing_check_is_notified_once_and_its_end_once(
    office: Office, receiver: Receiver
) -> None:
    office.check("freshness", "acme", "birch")
    for minutes in range(0, 60, 5):
        office.evaluate_at(minutes)
    office.check("freshness", passed=True)
    for minutes in (60, 61, 90):
        office.evaluate_at(minutes)

    assert titles(receiver.received) == [f"{FAILED} and birch", f"{RESOLVED} and birch"]
    body = receiver.received[0].body
    assert body["type"] == "failure"
    assert receiver.received[1].body["type"] == "success"
    for part in (
        "- acme: age_hours 4",
        "Since Wed 18 Mar 2026, 15:00 CDT.",
        "https://dagster.agency.example/assets/client_metrics?view=checks&checkDetail=freshness",
    ):
        assert part in body["message"]


def test_a_reminder_comes_after_the_hours_of_the_setting(
    office: Office, receiver: Receiver
) -> None:
    office = replace(office, settings={"alert_remind_hours": 3})
    office.check("freshness", "acme")
    for hours in range(7):
        office.evaluate_at(hours * 60)
    assert titles(receiver.received) == [FAILED, f"STILL {FAILED}", f"STILL {FAILED}"]


def test_one_outage_is_one_message_that_names_the_clients(
    office: Office, receiver: Receiver
) -> None:
    for client in ("acme", "birch", "cedar"):
        office.sync(client)
    office.passed = timedelta(hours=1)
    for client in ("acme", "birch", "cedar"):
        office.sync(client, f"{client}: GET /api/stats was answered 503. See whether it is up.")
    office.evaluate_at(60)
    assert receiver.received == [], "a retry may resolve it"
    office.evaluate_at(66)
    # The numbers become stale meanwhile.
    office.check("freshness", "acme", "birch", "cedar")
    office.evaluate_at(180)

    (message,) = receiver.received
    assert message.body["title"] == "ERROR: the sync fails for acme, birch and cedar"
    text = message.body["message"]
    assert text.count("503") == 1
    assert "/runs/a run 1:00:00" in text

    for client in ("acme", "birch", "cedar"):
        office.sync(client)
    office.evaluate_at(190)
    office.check("freshness", passed=True)
    office.evaluate_at(200)
    resolved = "RESOLVED: the sync works again for acme, birch and cedar"
    assert titles(receiver.received)[1:] == [resolved]


@pytest.mark.parametrize("check", ["freshness", "complete", "no_missing_days"])
def test_a_check_that_a_sync_feeds_is_held_back_until_the_sync_succeeds_again(
    office: Office, receiver: Receiver, check: str
) -> None:
    office.sync("acme", "acme: answered 503")
    office.check(check, "acme")
    for minutes in (0, 6, 60, 120):
        office.evaluate_at(minutes)
    assert titles(receiver.received) == ["ERROR: the sync fails for acme"]

    office.sync("acme")
    # Time for the next run of the checks, which may find that the sync has repaired it.
    for minutes in (121, 139, 142):
        office.evaluate_at(minutes)
    assert titles(receiver.received)[1:] == [
        "RESOLVED: the sync works again for acme",
        f"ERROR: {what_is_wrong(check, 'ERROR')} for acme",
    ]


def test_a_check_that_no_sync_feeds_is_notified_beside_a_failing_sync(
    office: Office, receiver: Receiver
) -> None:
    office.sync("acme", "acme: answered 503")
    office.check("plausible", "acme")
    office.evaluate_at(0)
    assert titles(receiver.received) == ["ERROR: numbers are impossible for acme"]


def test_a_check_that_flaps_every_20_minutes_is_not_36_messages_a_day(
    office: Office, receiver: Receiver
) -> None:
    for minutes in range(0, 6 * 60, 10):
        office.passed = timedelta(minutes=minutes)
        office.check("freshness", "acme", passed=minutes % 20 > 0)
        office.evaluate_at(minutes)
    assert titles(receiver.received) == [FAILED, RESOLVED, FAILED.replace(":", ", FLAPPING:")]
    assert "it began 2 times within 24 hours" in receiver.received[-1].body["message"]


def test_a_rejected_key_is_notified_though_syncs_of_others_fail_already(
    office: Office, receiver: Receiver
) -> None:
    away = "GET /api/stats was not answered. See whether Email Bison is up."
    for client in ("acme", "birch"):
        office.sync(client, f"{client}: {away}")
    for minutes in (0, 6, 10):
        office.evaluate_at(minutes)
    office.sync("cedar", f"cedar: answered 401. {for_key(KeyUse.WORKSPACE)}")
    for minutes in (11, 16, 17, 60):
        office.evaluate_at(minutes)
    first, second = titles(receiver.received)
    assert first == "ERROR: the sync fails for acme and birch"
    assert second.startswith("WORSE, ERROR: ")
    assert "cedar" in second


def test_a_state_is_read_as_it_was_stored(office: Office) -> None:
    reasons = {
        Reason("acme", "401"): Presence(START),
        Reason("birch"): Presence(START, START + timedelta(hours=1), told=True, again=True),
    }
    notice = LastNotice(START, False, "ERROR", ("acme",), frozenset(reasons), (START, START))
    state = AlertState(
        cause="sync",
        title="the sync fails",
        severity="WARN",
        names=("sync", "client_metrics"),
        clients=("acme", "birch"),
        since=START,
        tell_from=START,
        ended_at=START,
        told={"chat": notice},
        reasons=reasons,
        first_at=START,
        came_back=(START, START),
        eased_at=START,
        muted_at=START,
    )
    assert None not in vars(state).values()
    with office.engine.begin() as connection:
        store_states(connection, [state])
        assert read_states(connection) == {"sync": state}


def test_500_stale_clients_are_one_message_under_4_kb(office: Office, receiver: Receiver) -> None:
    stale = [f"client-{number}" for number in range(500)]
    shown = [{"workspace": it, "age_hours": 4} for it in stale[:50]]
    office.check("freshness", *stale, offenders=shown, more=450)
    office.evaluate_at(0)
    office.evaluate_at(1)
    (message,) = receiver.received
    assert " and 493 more" in message.body["message"]
    assert len(message.text.encode()) < 4_096


def test_several_problems_of_one_evaluation_are_one_message(
    office: Office, receiver: Receiver
) -> None:
    office.check("freshness", "acme")
    office.check("plausible", "birch", severity="WARN")
    office.evaluate_at(0, problem("daily_kpi_sync", title="the schedule daily_kpi_sync fails"))
    (message,) = receiver.received
    assert message.body["title"].startswith("KPIs: 3 problems: ")


def test_a_muted_client_is_left_out_and_with_all_muted_no_message_is_sent(
    office: Office, receiver: Receiver
) -> None:
    with office.engine.begin() as connection:
        mute(connection, "acme", START + timedelta(days=2), START)
    office.check("freshness", "acme", "birch", description="acme, birch are stale.")
    office.evaluate_at(0)
    (message,) = receiver.received
    assert "acme" not in message.text
    assert message.body["title"] == "ERROR: numbers are stale for birch"
    assert "Its page says what is wrong" in message.body["message"]

    with office.engine.begin() as connection:
        mute(connection, "complete", START + timedelta(days=2), START)
    office.check("complete", "birch")
    office.check("freshness", passed=True)
    office.evaluate_at(1)
    office.check("no_missing_days", "acme")
    office.evaluate_at(2)
    assert titles(receiver.received)[1:] == ["RESOLVED: numbers are fresh again for birch"]
