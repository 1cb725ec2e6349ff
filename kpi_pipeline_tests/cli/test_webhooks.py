"""`kpi webhooks`, against a local Email Bison and a gateway, both over HTTP."""

import os
import threading
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from secrets import token_urlsafe

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from kpi_pipeline.db.registry.clients import Client, all_clients
from kpi_pipeline.db.tables import client_metrics, webhook_events
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.gateway.app import create_app
from kpi_pipeline.inbox.ingest import Inbox
from kpi_pipeline_tests.bison_sandbox.running import Bison
from kpi_pipeline_tests.cli.running import Kpi, Result, calm_zone, closed_port, rows_of, written
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


@pytest.fixture
def pair(engine: Engine) -> list[Client]:
    """A client with a key of its own, and one without."""
    with engine.connect() as connection:
        known = all_clients(connection)
    return [next(it for it in known if it.has_key is has_key) for has_key in (True, False)]


def naming(clients: Iterable[Client]) -> list[str]:
    """The words that restrict a command to these clients."""
    return [word for client in clients for word in ("-w", client.workspace)]


def test_webhooks_are_registered_once_verified_and_unregistered(
    kpi: Kpi, live_bison: Bison, secret: str, pair: list[Client]
) -> None:
    made = kpi("webhooks", "register", *naming(pair))
    assert made.answer().endswith("2 of 2 clients changed.\n")
    assert writes(live_bison) == ["POST"] * 2
    again = kpi("webhooks", "register", *naming(pair))
    assert again.answer().endswith("0 of 2 clients changed.\n")
    good = kpi("webhooks", "verify", *naming(pair))
    assert good.answer() == "Webhooks are right in 2 of 2 workspaces.\n"
    assert writes(live_bison) == ["POST"] * 2

    removed = kpi("webhooks", "unregister", *naming(pair))
    assert removed.answer().count("✓ ") == 2
    assert writes(live_bison) == ["POST"] * 2 + ["DELETE"] * 2
    bad = kpi("webhooks", "verify", *naming(pair))
    assert bad.code == 1
    for client in pair:
        assert f"✗ {client.workspace}: missing: no webhook has the gateway's address." in bad.out
    assert secret not in shown(made, again, good, removed, bad)


def test_foreign_events_are_named_and_removed(
    kpi: Kpi, live_bison: Bison, secret: str, pair: list[Client]
) -> None:
    slug, number = pair[0].workspace, pair[0].bison_workspace_id
    (row,) = [it for it in live_bison.clients() if int(it["bison_workspace_id"]) == number]
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
    kpi: Kpi,
    secret: str,
    pair: list[Client],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    missing: str,
    words: str,
) -> None:
    monkeypatch.delenv(missing)
    for named in ([], naming(pair)):
        assert words in kpi("webhooks", command, *named).error()


def test_the_clients_of_an_instance_without_a_secret_are_left_out_with_a_warning(
    kpi: Kpi, secret: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = f"{os.environ['KPI_BISON_INSTANCES']}, emea https://emea.bison.example"
    monkeypatch.setenv("KPI_BISON_INSTANCES", both)
    rows = ("instance,bison_workspace_id,name", "emea,900,Emea Trading")
    kpi("clients", "import", written(tmp_path / "emea.csv", *rows)).answer()

    result = kpi("webhooks", "register", "--dry-run")

    assert "emea has no webhook secret, so its clients are left out." in result.err
    assert result.answer().endswith("26 of 26 clients would change; nothing was done.\n")
    error = kpi("webhooks", "register", "-w", "emea-trading").error()
    assert "set KPI_WEBHOOK_SECRET_EMEA to the output of" in error


def test_a_test_event_arrives_and_counts_nothing(
    kpi: Kpi, live_bison: Bison, engine: Engine, gateway: str, secret: str
) -> None:
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
    assert [it["last_status"] for it in live_bison.delivered()] == [200, 200]
    assert secret not in shown(*results)


@pytest.mark.usefixtures("gateway")
def test_a_test_of_a_named_client_is_sent_with_its_own_key_or_the_master_key(
    kpi: Kpi, live_bison: Bison, pair: list[Client]
) -> None:
    assert kpi("webhooks", "test", *naming(pair)).answer().count("✓ main: it was stored") == 2

    sent = [it for it in live_bison.calls() if it["path"] == TEST_EVENT]
    assert [it["workspace_id"] for it in sent] == [it.bison_workspace_id for it in pair]
    assert [it["key"] for it in sent] == ["workspace", "master"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kpi_pipeline.sync.webhook_probe.WAIT_SECONDS", 0.2)
    monkeypatch.setattr("kpi_pipeline.sync.webhook_probe._PAUSE_SECONDS", 0.05)


@pytest.mark.usefixtures("impatient", "gateway")
def test_a_gateway_that_has_another_secret_is_said_to_answer(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = token_urlsafe(32)
    monkeypatch.setenv("KPI_WEBHOOK_SECRET_MAIN", secret)
    result = kpi("webhooks", "test")
    assert result.code == 1
    assert "within 0.2 s nothing arrived in this database. A gateway answers at" in result.out
    assert "the same KPI_WEBHOOK_SECRET_MAIN and KPI_DATABASE_URL" in result.out
    assert secret not in shown(result)


@pytest.mark.usefixtures("impatient", "secret")
def test_a_gateway_that_is_down_is_named(kpi: Kpi, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_another_server_at_the_gateways_address_is_not_taken_for_it(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch, status: int, words: str
) -> None:
    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Location", "https://elsewhere.example/")
            self.end_headers()

        def do_POST(self) -> None:
            self.do_GET()

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


@pytest.mark.usefixtures("gateway")
def test_an_event_that_arrives_without_its_mark_is_named(
    kpi: Kpi, live_bison: Bison, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_longer_than_the_delivery(_seconds: float) -> None:
        assert [it["last_status"] for it in live_bison.delivered()] == [200]
        monkeypatch.setattr("kpi_pipeline.sync.webhook_probe.WAIT_SECONDS", 0)

    monkeypatch.setattr("kpi_pipeline.sync.webhook_probe.sleep", no_longer_than_the_delivery)
    monkeypatch.setattr("kpi_pipeline.sync.webhook_probe.TEST_MARKER", "another_mark")
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
