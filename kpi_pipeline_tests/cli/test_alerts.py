"""`kpi alerts`: a test message, what is wrong, and mutes; receivers are on this machine."""

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import URL, Engine

from kpi_pipeline.db.alerts import read_mutes
from kpi_pipeline.db.vault import Vault
from kpi_pipeline_tests.alerts.support import Office, json_url
from kpi_pipeline_tests.bison_sandbox.receiver import Receiver, receiving
from kpi_pipeline_tests.cli.running import Kpi, address, cells, closed_port
from kpi_pipeline_tests.db.stocked import imported, record


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as opened:
        yield opened


@pytest.fixture
def office(database: URL, engine: Engine, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> Office:
    """Two clients, one of whom is stale; the command is configured for their database."""
    monkeypatch.setenv("KPI_DATABASE_URL", address(database))
    imported(engine, vault, record(101, "Acme"), record(102, "Birch"))
    office = Office(engine, vault, [])
    office.check("freshness", "acme")
    return office


def mutes(engine: Engine) -> dict[str, timedelta]:
    now = datetime.now(UTC)
    with engine.connect() as connection:
        return {name: until - now for name, until in read_mutes(connection, now).items()}


def test_a_test_message_goes_to_each_receiver_and_each_is_told_by_service_and_server(
    kpi: Kpi, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = secrets.token_urlsafe(16)
    urls = [json_url(receiver.url, f"/{secret}"), f"json://127.0.0.1:{closed_port()}/{secret}"]
    monkeypatch.setenv("KPI_ALERT_URLS", f"{urls[0]}, {urls[1]} nonsense://{secret}")

    result = kpi("alerts", "test")

    assert result.code == 1
    assert result.out.splitlines() == [
        "json://127.0.0.1: ✓ took it",
        "json://127.0.0.1 #2: ✗ did not take it; check its address, and that it can be reached "
        "from here",
        "entry 3: ✗ is no address that apprise knows; see its list of services",
        "1 of 3 receivers took the message.",
    ]
    assert secret not in result.out + result.err
    (message,) = receiver.received
    assert message.path == f"/{secret}"
    assert message.body["title"] == "A test of kpi_pipeline's alerts"


def test_a_test_that_reaches_everybody_is_good(
    kpi: Kpi, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_ALERT_URLS", json_url(receiver.url))
    assert kpi("alerts", "test").answer().endswith("1 of 1 receivers took the message.\n")


def test_a_test_without_receivers_is_refused(kpi: Kpi) -> None:
    assert kpi("alerts", "test").refusal().startswith("KPI_ALERT_URLS names nobody.")


def test_the_list_shows_what_is_wrong_who_was_told_and_who_could_not_be_reached(
    kpi: Kpi, office: Office, receiver: Receiver
) -> None:
    urls = [json_url(receiver.url), f"xml://127.0.0.1:{closed_port()}"]
    office.with_(urls=urls).evaluate_at(0)

    screen = kpi("alerts", "list").answer()

    assert cells(screen, "freshness") == [
        *("freshness", "ERROR", "freshness of client_metrics", "1"),
        *("2026-03-18 15:00", "json://127.0.0.1"),
    ]
    assert "Not reached: xml://127.0.0.1 has taken nothing since 2026-03-18 15:00" in screen


def test_when_nothing_is_wrong_the_list_says_so(kpi: Kpi, office: Office) -> None:
    assert kpi("alerts", "list").answer() == "Nothing is wrong that anybody is to be told of.\n"


@pytest.mark.parametrize(
    ("span", "length"),
    [
        ("2d", timedelta(days=2)),
        ("12h", timedelta(hours=12)),
        ("1d12h30m", timedelta(days=1, hours=12, minutes=30)),
    ],
)
def test_a_client_or_a_check_is_muted_for_a_while_and_listed(
    kpi: Kpi, office: Office, span: str, length: timedelta
) -> None:
    for name in ("acme", "freshness"):
        assert f"{name} is muted until " in kpi("alerts", "mute", name, "--for", span).answer()
    found = mutes(office.engine)
    assert set(found) == {"acme", "freshness"}
    for left in found.values():
        assert length - timedelta(minutes=1) < left <= length
    assert kpi("alerts", "list").answer().count("Muted until ") == 2


def test_what_is_unmuted_is_told_of_again(kpi: Kpi, office: Office) -> None:
    kpi("alerts", "mute", "acme", "--for", "2d").answer()
    assert kpi("alerts", "unmute", "acme").answer() == "acme is not muted any more.\n"
    assert mutes(office.engine) == {}
    assert kpi("alerts", "unmute", "acme").refusal().startswith("acme is not muted.")


def test_a_name_that_nobody_knows_is_not_muted(kpi: Kpi, office: Office) -> None:
    told = kpi("alerts", "mute", "acmee", "--for", "2d").refusal()
    assert told.startswith("acmee is neither a client's key nor the name of a check or an alert.")


@pytest.mark.parametrize("span", ["2", "d", "", "0h", "367d", "2 days", "-2d"])
def test_a_span_that_is_none_is_refused_with_an_example(
    kpi: Kpi, office: Office, span: str
) -> None:
    told = kpi("alerts", "mute", "acme", f"--for={span}").refusal()
    assert told.endswith("Write one such as 2d, 12h or 90m, 366d at most.")
    assert mutes(office.engine) == {}
