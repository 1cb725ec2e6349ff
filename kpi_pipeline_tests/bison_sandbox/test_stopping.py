"""Stopping a sandbox with deliveries and leads pending."""

import signal
import subprocess
import sys

import httpx
import pytest

from kpi_pipeline_tests.bison_sandbox.receiver import Receiver, wait_until
from kpi_pipeline_tests.bison_sandbox.running import Stage, bison_on, options

COMMAND = [sys.executable, "-m", "kpi_pipeline.cli.main", "sandbox", "--port", "0"]


def test_what_is_pending_when_a_sandbox_ends_is_sent_no_more(
    stage: Stage, receiver: Receiver
) -> None:
    receiver.held.add("/in")
    with bison_on(stage, options()) as bison:
        bison.variants(delivery_retry_seconds=0.01)
        bison.parent_hook(f"{receiver.url}/in")
        bison.mark(bison.with_key()[0], leads=40)
        receiver.wait_for(25)
    receiver.let_go()
    with bison_on(stage, options()) as another:
        another.parent_hook(f"{receiver.url}/other")
        another.mark(another.with_key()[0], leads=10)
        another.delivered()
    assert (len(receiver.at("/in")), len(receiver.at("/other"))) == (25, 10)


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.long
def test_the_command_ends_quietly_with_deliveries_pending_and_leads_to_come(
    receiver: Receiver, number: signal.Signals
) -> None:
    receiver.held.add("/held")
    receiver.answer = lambda path, before: 500
    words = ["--clients", "3", "--live", "--live-pace", "100000"]
    words += ["--variant", "delivery_retry_seconds=60", "--variant", "delivery_repeats=1"]
    with subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[4]
            with httpx.Client(base_url=url) as http:
                for path in ("held", "failing"):
                    http.post("/sandbox/parent-hook", json={"url": f"{receiver.url}/{path}"})
                wait_until(lambda: len(receiver.at("/held")) > 5, lambda: receiver.received)
                wait_until(lambda: len(receiver.at("/failing")) > 5, lambda: receiver.received)
                [body, *_] = receiver.at("/held")
                assert body.body["event"]["instance_url"] == url
                process.send_signal(number)
                rest, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, rest, errors) == (0, "", "")
