"""What a receiver of JSON reads: the type of a message, and names from outside as text."""

import pytest

from kpi_pipeline.alerts.message import Message, MessageType
from kpi_pipeline_tests.alerts.support import Office
from kpi_pipeline_tests.bison_sandbox.receiver import Receiver


@pytest.mark.parametrize(("severity", "kind"), [("WARN", "warning"), ("ERROR", "failure")])
def test_a_warning_reaches_a_receiver_as_a_warning(
    office: Office, receiver: Receiver, severity: str, kind: str
) -> None:
    office.check("freshness", "acme", severity=severity)
    office.evaluate_at(0)
    (received,) = receiver.received
    assert received.body["type"] == kind
    assert received.body["title"] == f"{severity}: numbers are stale for acme"


def test_a_message_calls_nobody_whatever_a_server_or_a_name_says(
    office: Office, receiver: Receiver
) -> None:
    office.sync(
        "acme", "acme: answered 500: <!channel> @everyone [free](http://evil.example)\x9b1A"
    )
    office.evaluate_at(0)
    office.evaluate_at(6)
    (received,) = receiver.received
    text = received.body["message"]
    assert "free" in text
    for command in ("<!channel>", "@everyone", "](", "\x9b"):
        assert command not in text


@pytest.mark.parametrize("kind", list(MessageType))
def test_each_type_of_message_is_one_that_receivers_know(
    office: Office, receiver: Receiver, kind: MessageType
) -> None:
    (receiver_of_json,) = office.receivers
    assert receiver_of_json.send(Message("A title", "A body", kind))
    assert receiver.received[0].body["type"] == kind.value
