"""Receivers of alerts that are down, slow, removed or new, in evaluations over a real database."""

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
from kpi_pipeline.db.alerts import (
    read_failing,
    read_states,
)
from kpi_pipeline_tests.alerts.support import (
    Office,
    json_url,
    titles,
)
from kpi_pipeline_tests.bison_sandbox.receiver import Receiver

FAILED = "ERROR: numbers are stale for acme"
RESOLVED = "RESOLVED: numbers are fresh again for acme"


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
