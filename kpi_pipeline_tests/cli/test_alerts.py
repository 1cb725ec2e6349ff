"""`kpi alerts`: a test message, what is wrong, and mutes; receivers are on this machine."""

import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import URL, Engine

from kpi_pipeline.db.alerts import read_mutes
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline_tests.alerts.support import Office, json_url
from kpi_pipeline_tests.bison_sandbox.receiver import Receiver
from kpi_pipeline_tests.cli.running import Kpi, address, cells, closed_port
from kpi_pipeline_tests.db.stocked import imported, record


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
        return {name: it.muted_until - now for name, it in read_mutes(connection, now).items()}


def test_a_test_message_goes_to_each_receiver_which_is_shown_by_service_and_server(
    kpi: Kpi, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = secrets.token_urlsafe(16)
    urls = [json_url(receiver.url, f"/{secret}"), f"json://127.0.0.1:{closed_port()}/{secret}"]
    monkeypatch.setenv("KPI_ALERT_URLS", f"{urls[0]}, {urls[1]} nonsense://{secret}")

    result = kpi("alerts", "test")

    assert result.code == 1
    assert result.out.splitlines() == [
        "json://127.0.0.1: ✓ accepted it",
        "json://127.0.0.1 #2: ✗ did not accept it; check its address, and that it is reachable "
        "from here",
        "entry 3: ✗ is not an address that apprise knows; see its list of services",
        "1 of 3 receivers accepted the message.",
    ]
    assert secret not in result.out + result.err
    (message,) = receiver.received
    assert message.path == f"/{secret}"
    assert message.body["title"] == "A test of kpi_pipeline's alerts"


def test_a_test_that_reaches_every_receiver_succeeds(
    kpi: Kpi, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_ALERT_URLS", json_url(receiver.url))
    assert kpi("alerts", "test").answer().endswith("1 of 1 receiver accepted the message.\n")


def test_a_test_without_receivers_is_refused(kpi: Kpi) -> None:
    assert kpi("alerts", "test").error().startswith("KPI_ALERT_URLS has no receiver.")


def test_the_list_shows_problems_who_was_alerted_and_unreachable_receivers(
    kpi: Kpi, office: Office, receiver: Receiver
) -> None:
    urls = [json_url(receiver.url), f"xml://127.0.0.1:{closed_port()}"]
    replace(office, urls=urls).evaluate_at(0)

    screen = kpi("alerts", "list").answer()

    assert cells(screen, "freshness") == [
        *("freshness", "ERROR", "numbers are stale", "1"),
        *("2026-03-18 15:00 CDT", "json://127.0.0.1"),
    ]
    assert "Unreachable: xml://127.0.0.1 has accepted nothing since 2026-03-18 15:00 CDT" in screen


def test_the_list_says_that_there_is_no_problem(kpi: Kpi, office: Office) -> None:
    assert kpi("alerts", "list").answer() == "There is no problem to alert about.\n"


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


def test_a_client_is_muted_in_one_check(kpi: Kpi, office: Office) -> None:
    for name in ("acme:plausible", "acme:sync"):
        assert f"{name} is muted until " in kpi("alerts", "mute", name, "--for", "2d").answer()
    assert set(mutes(office.engine)) == {"acme:plausible", "acme:sync"}
    assert "acme:plausible" in kpi("alerts", "list").answer()
    assert kpi("alerts", "unmute", "acme:plausible").answer().endswith("is no longer muted.\n")


def test_the_list_shows_what_flaps_and_what_each_mute_covers(
    kpi: Kpi, office: Office, receiver: Receiver
) -> None:
    office.check("plausible", "birch", severity="WARN")
    for name in ("acme:freshness", "plausible", "birch:sync"):
        kpi("alerts", "mute", name, "--for", "2d").answer()
    for minutes in range(0, 50, 10):
        office.check("complete", "birch", passed=minutes % 20 > 0)
        replace(office, urls=[json_url(receiver.url)]).evaluate_at(minutes)

    screen = kpi("alerts", "list").answer()

    assert cells(screen, "complete")[2].endswith("; began 3 times in 24 h")
    assert cells(screen, "plausible")[-1] == cells(screen, "freshness")[-1] == "muted"
    for covered in (
        "acme:freshness (all about acme in freshness)",
        "plausible (WARNs about plausible; an ERROR is alerted)",
        "birch:sync (all about birch in sync)",
    ):
        assert covered in screen


@pytest.mark.parametrize("name", ["acme:", ":plausible", "acme:plausable", "acmee:plausible"])
def test_a_pair_with_an_unknown_half_is_not_muted(kpi: Kpi, office: Office, name: str) -> None:
    assert "is written CLIENT:CHECK" in kpi("alerts", "mute", name, "--for=2d").error()
    assert mutes(office.engine) == {}


def test_alerts_are_sent_again_about_what_is_unmuted(kpi: Kpi, office: Office) -> None:
    kpi("alerts", "mute", "acme", "--for", "2d").answer()
    assert kpi("alerts", "unmute", "acme").answer() == "acme is no longer muted.\n"
    assert mutes(office.engine) == {}
    assert kpi("alerts", "unmute", "acme").error().startswith("acme is not muted.")


def test_an_unknown_name_is_not_muted(kpi: Kpi, office: Office) -> None:
    error = kpi("alerts", "mute", "acmee", "--for", "2d").error()
    assert error.startswith(
        "acmee is neither a client's workspace key nor the name of a check or an alert."
    )


@pytest.mark.parametrize("span", ["2", "d", "", "0h", "367d", "2 days", "-2d"])
def test_an_invalid_span_is_rejected_with_an_example(kpi: Kpi, office: Office, span: str) -> None:
    error = kpi("alerts", "mute", "acme", f"--for={span}").error()
    assert error.endswith("Write one such as 2d, 12h or 90m, 366d at most.")
    assert mutes(office.engine) == {}
