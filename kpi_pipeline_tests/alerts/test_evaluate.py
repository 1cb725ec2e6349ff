"""Evaluations over a real database and a real receiver; the test sets the clock."""

import logging
import secrets
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from kpi_pipeline.alerts import delivery
from kpi_pipeline.alerts import evaluate as evaluate_module
from kpi_pipeline.alerts.evaluate import evaluate
from kpi_pipeline.alerts.message import Message
from kpi_pipeline.alerts.wording import what_is_wrong
from kpi_pipeline.bison import KeyUse
from kpi_pipeline.bison.errors import for_key
from kpi_pipeline.db.alerts import (
    AlertState,
    LastNotice,
    Presence,
    Reason,
    mute,
    read_failing,
    read_states,
    store_states,
)
from kpi_pipeline_tests.alerts.support import (
    START,
    Office,
    json_url,
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


def test_a_receiver_that_was_down_for_ten_minutes_gets_the_message_later_once(
    office: Office, receiver: Receiver
) -> None:
    receiver.answer = lambda path, before: 503 if office.passed < timedelta(minutes=10) else 200
    office.check("freshness", "acme")
    for half_minutes in range(60):
        office.evaluate_at(half_minutes / 2)
    failed = receiver.received[:-1]
    assert 3 <= len(failed) <= 8, "each attempt waits longer than the last"
    assert titles(receiver.received)[-1] == FAILED
    assert len(receiver.received) == len(failed) + 1
    with office.engine.connect() as connection:
        assert read_failing(connection) == {}


def test_while_one_receiver_is_down_the_others_get_the_message_once(
    office: Office, receiver: Receiver
) -> None:
    receiver.answer = lambda path, before: 503 if path == "/down" else 200
    office = replace(office, urls=[json_url(receiver.url, "/down"), json_url(receiver.url, "/up")])
    office.check("freshness", "acme")
    first = office.evaluate_at(0)
    for minutes in (1, 2, 3):
        office.evaluate_at(minutes)
    assert titles(receiver.at("/up")) == [FAILED]
    assert len(receiver.at("/down")) >= 2
    assert first.notified == {"json://127.0.0.1 #2": 1}
    assert [(it.receiver, it.tries) for it in first.failing] == [("json://127.0.0.1", 1)]


def test_a_failing_receiver_is_tried_after_the_others(office: Office, receiver: Receiver) -> None:
    receiver.answer = lambda path, before: 503 if path == "/down" else 200
    office = replace(office, urls=[json_url(receiver.url, "/down"), json_url(receiver.url, "/up")])
    office.check("freshness", "acme")
    office.evaluate_at(0)
    office.check("plausible", "birch")

    office.evaluate_at(10)

    paths = [it.path for it in receiver.received]
    assert paths == ["/down", "/up", "/up", "/down"]


@dataclass(frozen=True)
class _SlowReceiver(delivery.Receiver):
    """Accepts each message, after ten seconds of the test's clock."""

    accepted: list[str] = field(default_factory=list)

    def send(self, message: Message) -> bool:
        self.accepted.append(message.title)
        return True


def test_an_evaluation_ends_before_dagster_ends_it_and_the_next_ones_serve_the_rest(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = [_SlowReceiver(f"chat {number}", None) for number in range(9)]
    clock = SimpleNamespace(monotonic=lambda: 10.0 * sum(len(it.accepted) for it in slow))
    monkeypatch.setattr(evaluate_module, "time", clock)
    office.check("freshness", "acme")

    first = evaluate(office.app, slow)
    spent = clock.monotonic()
    later = [evaluate(office.app, slow) for _ in range(2)]

    # Dagster allows 60 s, and a last receiver may need some seconds until its time-out.
    assert 0 < spent <= 45
    assert first.notified.keys() < {it.name for it in slow}
    assert {name for it in (first, *later) for name in it.notified} == {it.name for it in slow}
    assert [len(it.accepted) for it in slow] == [1] * 9


def test_a_receiver_that_never_answers_costs_its_time_out_only(
    office: Office, receiver: Receiver
) -> None:
    office = replace(office, urls=[json_url(receiver.url, "/hangs?rto=0.2")])
    receiver.held.add("/hangs")
    office.check("freshness", "acme")
    assert office.evaluate_at(0).notified == {}
    receiver.let_go()
    assert office.evaluate_at(1).notified == {"json://127.0.0.1": 1}


def test_a_process_that_dies_before_storing_a_notice_sends_it_again(
    office: Office, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.check("freshness", "acme")
    with monkeypatch.context() as patch:
        patch.setattr(evaluate_module, "after_notice", Mock(side_effect=SystemExit))
        with pytest.raises(SystemExit):
            office.evaluate_at(0)
    office.evaluate_at(1)
    office.evaluate_at(2)
    assert titles(receiver.received) == [FAILED, FAILED], "at least once"


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


def test_without_receivers_problems_are_stored_for_the_first_receiver_to_come(
    office: Office, receiver: Receiver
) -> None:
    office.check("freshness", "acme")
    without_receivers = replace(office, urls=[])
    result = without_receivers.evaluate_at(0)
    assert (result.problems, result.receivers, result.notified) == (1, 0, {})
    with office.engine.connect() as connection:
        assert set(read_states(connection)) == {"freshness"}
    office.evaluate_at(1)
    assert titles(receiver.received) == [FAILED]


def test_a_receiver_that_is_removed_from_the_settings_is_forgotten(
    office: Office, receiver: Receiver
) -> None:
    receiver.answer = lambda path, before: 503
    office.check("freshness", "acme")
    assert len(office.evaluate_at(0).failing) == 1
    without_receivers = replace(office, urls=[])
    assert without_receivers.evaluate_at(1).failing == []
    with office.engine.connect() as connection:
        assert read_failing(connection) == {}


def test_no_log_state_or_message_holds_the_url_of_a_receiver(
    office: Office, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = secrets.token_urlsafe(16)
    host = receiver.url.removeprefix("http://")
    office = replace(
        office,
        urls=[
            f"json://kpi:{secret}@{host}/{secret}",
            f"json://kpi:{secret}@127.0.0.1:1/{secret}",
            f"nonsense://{secret}/{secret}",
            f"slack://{secret}",
        ],
    )
    office.check("freshness", "acme")
    result = office.evaluate_at(0)
    names = [it.name for it in office.receivers]
    assert names[:3] == ["json://127.0.0.1", "json://127.0.0.1 #2", "entry 3"]
    assert set(result.notified) == {"json://127.0.0.1"}
    with office.engine.connect() as connection:
        kept = f"{read_states(connection)}{read_failing(connection)}"
    for written in (caplog.text, repr(office.receivers), repr(result), kept, *names):
        assert secret not in written
    assert [secret in it.text for it in receiver.received] == [False]
