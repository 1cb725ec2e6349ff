"""`kpi webhooks`, against a local Email Bison and a gateway, both over HTTP."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from secrets import token_urlsafe

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from kpi_pipeline.db.tables import client_metrics, clients, webhook_events
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.gateway.app import create_app
from kpi_pipeline.inbox.ingest import Inbox
from kpi_pipeline_tests.bison_sandbox.running import Bison, Stage
from kpi_pipeline_tests.cli.running import Kpi, Result, calm_zone, closed_port, rows_of
from kpi_pipeline_tests.gateway.support import serving

pytestmark = pytest.mark.usefixtures("imported")

HOOKS = "/api/webhook-url"
TEST_EVENT = "/api/webhook-events/test-event"


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    """That of the instance `main`; the gateway has a public address that nobody calls."""
    made = token_urlsafe(32)
    monkeypatch.setenv("KPI_WEBHOOK_SECRET_MAIN", made)
    monkeypatch.setenv("KPI_GATEWAY_URL", "https://kpi.agency.example")
    return made


@pytest.fixture
def gateway(engine: Engine, secret: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A gateway on the tests' database; its address is the public one."""
    inbox = Inbox(engine, calm_zone(), utc_now, {}, realtime=True)
    with serving(create_app(inbox, {"main": SecretStr(secret)})) as http:
        address = str(http.base_url).rstrip("/")
        monkeypatch.setenv("KPI_GATEWAY_URL", address)
        yield address


def writes(bison: Bison) -> list[str]:
    return [it["method"] for it in bison.calls() if HOOKS in it["path"] and it["method"] != "GET"]


def shown(*results: Result) -> str:
    return "".join(it.out + it.err for it in results)


def test_a_dry_run_prints_the_plan_and_does_nothing(
    kpi: Kpi, live_bison: Bison, secret: str
) -> None:
    result = kpi("webhooks", "register", "--dry-run")
    lines = result.answer().splitlines()
    assert lines[0] == "The address of webhooks is https://kpi.agency.example/webhooks/bison/…"
    assert len(lines) == 28
    assert all(": would create a webhook for email_sent, " in line for line in lines[1:-1])
    assert lines[-1] == "26 of 26 clients would change; nothing was done."
    assert writes(live_bison) == []
    assert secret not in shown(result)


def test_all_workspaces_are_registered_verified_and_unregistered(
    kpi: Kpi, live_bison: Bison, secret: str
) -> None:
    made = kpi("webhooks", "register")
    assert made.answer().endswith("26 of 26 clients changed.\n")
    assert writes(live_bison) == ["POST"] * 26
    again = kpi("webhooks", "register")
    assert again.answer().endswith("0 of 26 clients changed.\n")
    good = kpi("webhooks", "verify")
    assert good.answer() == "26 of 26 clients have the webhook that they should.\n"
    assert writes(live_bison) == ["POST"] * 26

    removed = kpi("webhooks", "unregister")
    assert removed.answer().endswith("26 of 26 clients changed.\n")
    assert writes(live_bison) == ["POST"] * 26 + ["DELETE"] * 26
    assert secret not in shown(made, again, good, removed)


def test_named_clients_alone_are_changed(
    kpi: Kpi, live_bison: Bison, secret: str, engine: Engine
) -> None:
    row = live_bison.with_key()[0]
    (slug,) = [
        it["workspace"]
        for it in rows_of(engine, clients)["clients"]
        if it["bison_workspace_id"] == int(row["bison_workspace_id"])
    ]
    url = f"https://kpi.agency.example/webhooks/bison/{secret}"
    live_bison.hook(row, url, "lead_interested", "email_opened")

    verified = kpi("webhooks", "verify", "-w", slug)
    assert verified.code == 1
    assert f"{slug}: foreign events: webhook 1 sends email_opened" in verified.out
    changed = kpi("webhooks", "register", "-w", slug)
    assert f"✓ {slug}: changed webhook 1: add email_sent" in changed.answer()
    assert "remove email_opened" in changed.out
    assert "1 of 1 client changed." in changed.out
    assert writes(live_bison) == ["POST", "PUT"]
    assert secret not in shown(verified, changed)


def test_a_client_that_fails_is_named_and_the_exit_code_is_1(
    kpi: Kpi, live_bison: Bison, secret: str
) -> None:
    number = int(live_bison.with_key()[0]["bison_workspace_id"])
    live_bison.http.post("/sandbox/keys/revoke", json={"workspace_id": number})
    result = kpi("webhooks", "register")
    assert result.code == 1
    assert result.out.count("✗") == 1
    assert "Give the client a valid api_key" in result.out
    assert "25 of 26 clients changed." in result.out


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("KPI_GATEWAY_URL", "KPI_GATEWAY_URL is not set: set it to the public address"),
        ("KPI_WEBHOOK_SECRET_MAIN", "set KPI_WEBHOOK_SECRET_MAIN to the output of"),
    ],
)
@pytest.mark.parametrize("command", ["register", "verify", "unregister", "test"])
def test_a_setting_that_is_missing_is_named(
    kpi: Kpi, secret: str, monkeypatch: pytest.MonkeyPatch, command: str, missing: str, words: str
) -> None:
    monkeypatch.delenv(missing)
    assert words in kpi("webhooks", command).error()


class Vendor:
    """Answers the call for a test event in place of a sandbox, and sends it, or loses it."""

    def __init__(self, app: ASGIApp, send: Callable[[str], None]) -> None:
        self._app = app
        self._send = send

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") != TEST_EVENT:
            await self._app(scope, receive, send)
            return
        body = await Request(scope, receive).json()
        assert body["event_type"] == "lead_interested"
        threading.Thread(target=self._send, args=(body["url"],)).start()
        await JSONResponse({"data": {"success": True}})(scope, receive, send)


SAMPLE = {
    "event": {"type": "LEAD_INTERESTED", "name": "Contact Interested", "workspace_id": 1},
    "data": {"lead": {"id": 1}, "campaign": {"id": 2}, "reply": {"id": 3}},
}


def deliver(url: str) -> None:
    """Send the vendor's sample to the address."""
    httpx.post(url, content=json.dumps(SAMPLE), trust_env=False).raise_for_status()


def lose(_url: str) -> None:
    """Send nothing."""


def test_a_test_event_arrives_and_counts_nothing(
    kpi: Kpi, stage: Stage, engine: Engine, gateway: str, secret: str
) -> None:
    stage.app = Vendor(stage.app, deliver)
    before = rows_of(engine, client_metrics)

    results = [kpi("webhooks", "test") for _ in range(2)]

    for result in results:
        assert f"a test event goes to {gateway}/webhooks/bison/…" in result.answer()
        assert "✓ main: it was stored after " in result.out
    events = rows_of(engine, webhook_events)["webhook_events"]
    assert [(it["status"], it["metric"], it["workspace"]) for it in events] == [
        ("test", None, None)
    ] * 2
    assert rows_of(engine, client_metrics) == before
    assert secret not in shown(*results)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kpi_pipeline.sync.webhook_probe.WAIT_SECONDS", 0.2)
    monkeypatch.setattr("kpi_pipeline.sync.webhook_probe._PAUSE_SECONDS", 0.05)


@pytest.mark.usefixtures("impatient", "gateway")
def test_a_test_event_that_is_lost_on_the_way_to_a_good_gateway_says_what_to_check(
    kpi: Kpi, stage: Stage, secret: str
) -> None:
    stage.app = Vendor(stage.app, lose)
    result = kpi("webhooks", "test")
    assert result.code == 1
    assert "within 0.2 s nothing arrived in this database. A gateway answers at" in result.out
    assert "the same KPI_WEBHOOK_SECRET_MAIN and KPI_DATABASE_URL" in result.out
    assert secret not in shown(result)


@pytest.mark.usefixtures("impatient", "secret")
def test_a_gateway_that_is_down_is_named(
    kpi: Kpi, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.app = Vendor(stage.app, lose)
    address = f"http://127.0.0.1:{closed_port()}"
    monkeypatch.setenv("KPI_GATEWAY_URL", address)
    result = kpi("webhooks", "test")
    assert result.code == 1
    assert f"nothing arrived, and {address} does not answer here either (Connect" in result.out


@pytest.mark.usefixtures("impatient", "secret")
@pytest.mark.parametrize(
    ("status", "words"),
    [
        (301, "answers with a redirect (301), which webhooks do not follow."),
        (404, "is not the gateway (status 404). Check that the proxy forwards /webhooks/bison/"),
        (502, "is not the gateway (status 502). Check that the proxy forwards /webhooks/bison/"),
    ],
)
def test_another_server_at_the_gateways_address_is_told_from_it(
    kpi: Kpi, stage: Stage, monkeypatch: pytest.MonkeyPatch, status: int, words: str
) -> None:
    stage.app = Vendor(stage.app, lose)

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Location", "https://elsewhere.example/")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        monkeypatch.setenv("KPI_GATEWAY_URL", f"http://127.0.0.1:{proxy.server_port}")
        result = kpi("webhooks", "test")
        proxy.shutdown()
        thread.join()
    assert result.code == 1
    assert words in result.out


@pytest.mark.usefixtures("impatient", "gateway")
def test_an_event_that_arrives_without_its_mark_is_named(kpi: Kpi, stage: Stage) -> None:
    stage.app = Vendor(stage.app, lambda url: deliver(url.partition("?")[0]))
    result = kpi("webhooks", "test")
    assert result.code == 1
    assert "no event with the mark of this test arrived, but one with the status test" in result.out


@pytest.mark.usefixtures("gateway")
def test_a_call_that_email_bison_refuses_is_an_error_without_the_address(
    kpi: Kpi, live_bison: Bison, secret: str
) -> None:
    live_bison.fault("status", path=TEST_EVENT, status=422, message=f"No {secret} here.")
    result = kpi("webhooks", "test")
    assert result.code == 1
    assert f"POST {TEST_EVENT} answered 422" in result.out
    assert secret not in shown(result)
