"""The calls that change webhooks: what they send, and that no error shows an address."""

import json
from collections.abc import Awaitable, Callable

import httpx
import pytest
from pydantic import SecretStr

from kpi_pipeline.bison import (
    BisonError,
    MalformedAnswer,
    RefusedRequest,
    Unavailable,
    WorkspaceReader,
)
from kpi_pipeline.bison.webhooks import WebhookCalls
from kpi_pipeline_tests.bison.support import (
    HARBOR,
    WORKSPACE_KEY,
    Script,
    answer,
    client_for,
    error_answer,
    run,
)

# Short parts, so that nothing but the secret itself gives it away.
SECRET = "an-invented-secret_of-words-alone"
URL = SecretStr(f"https://kpi.agency.example/webhooks/bison/{SECRET}")
HOOK = {"id": 12, "name": "kpi", "url": URL.get_secret_value(), "events": ["lead_interested"]}
EVENTS = ("lead_interested", "lead_replied")

Work = Callable[[WebhookCalls], Awaitable[None]]
WORK: dict[str, Work] = {
    "create": lambda calls: calls.create("kpi", URL, EVENTS),
    "replace": lambda calls: calls.replace(12, "kpi", URL, EVENTS),
    "delete": lambda calls: calls.delete(12, URL),
    "test": lambda calls: calls.send_test("lead_interested", URL),
}


def make(script: Script, work: Work) -> list[httpx.Request]:
    async def whole() -> None:
        async def in_workspace(reader: WorkspaceReader) -> None:
            await work(WebhookCalls(reader))

        async with client_for(script) as bison:
            await bison.read_as(HARBOR, WORKSPACE_KEY, in_workspace)

    run(whole())
    return script.requests


@pytest.mark.parametrize(
    ("name", "answered", "request_line", "body"),
    [
        (
            "create",
            answer(HOOK, 201),
            "POST /api/webhook-url",
            {"name": "kpi", "url": URL.get_secret_value(), "events": list(EVENTS)},
        ),
        (
            "replace",
            answer(HOOK),
            "PUT /api/webhook-url/12",
            {"name": "kpi", "url": URL.get_secret_value(), "events": list(EVENTS)},
        ),
        (
            "delete",
            answer({"success": True, "message": "Deleted."}),
            "DELETE /api/webhook-url/12",
            None,
        ),
        (
            "test",
            answer({"success": True, "message": "Sent."}),
            "POST /api/webhook-events/test-event",
            {"event_type": "lead_interested", "url": URL.get_secret_value()},
        ),
    ],
)
def test_a_call_sends_what_the_vendor_documents(
    name: str, answered: httpx.Response, request_line: str, body: object
) -> None:
    (request,) = make(Script(answered), WORK[name])

    assert f"{request.method} {request.url.path}" == request_line
    assert (json.loads(request.content) if request.content else None) == body


def quoting(status: int) -> httpx.Response:
    """An answer that quotes the address, once whole and once its secret alone."""
    return error_answer(status, f"The url {URL.get_secret_value()} ({SECRET}) is not allowed.")


@pytest.mark.parametrize("name", WORK)
@pytest.mark.parametrize("status", [200, 403, 404, 422, 429, 503])
def test_no_error_and_no_log_shows_an_address_that_an_answer_quotes(
    name: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with pytest.raises(BisonError) as failed:
        make(Script(quoting(status)), WORK[name])

    assert "***" in str(failed.value)
    for text in (str(failed.value), repr(failed.value), caplog.text):
        assert SECRET not in text


def test_a_webhook_is_not_created_a_second_time_when_no_answer_comes() -> None:
    script = Script(httpx.ReadTimeout("no answer"), answer(HOOK, 201))
    with pytest.raises(Unavailable):
        make(script, WORK["create"])
    assert len(script.requests) == 1


def test_a_failure_of_status_200_is_an_error() -> None:
    with pytest.raises(MalformedAnswer, match="limit of webhooks"):
        make(Script(error_answer(200, "The limit of webhooks is reached")), WORK["create"])


def test_a_request_that_the_instance_refuses_is_an_error_with_its_reason() -> None:
    refused = httpx.Response(422, json={"message": "No.", "errors": {"events": ["Unknown type."]}})
    with pytest.raises(RefusedRequest, match="Unknown type"):
        make(Script(refused), WORK["replace"])
