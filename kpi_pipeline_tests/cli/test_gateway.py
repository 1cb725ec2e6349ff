"""`kpi gateway` and `kpi webhook-secret`: what they refuse, and what they print."""

import secrets

import pytest
from sqlalchemy import URL

from kpi_pipeline_tests.cli.running import Kpi, taken_port
from kpi_pipeline_tests.gateway.support import point_to


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    """That of the instance `main`."""
    made = secrets.token_urlsafe(32)
    monkeypatch.setenv("KPI_WEBHOOK_SECRET_MAIN", made)
    return made


def test_it_refuses_a_port_in_use(
    kpi: Kpi, database: URL, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to(database, monkeypatch)
    with taken_port() as port:
        refusal = kpi("gateway", "--port", port).refusal()
    assert refusal.startswith(f"Port {port} on 127.0.0.1 is in use.")
    assert "KPI_GATEWAY_PORT" in refusal
    assert secret not in refusal


def test_it_refuses_a_host_that_is_not_this_machine(
    kpi: Kpi, database: URL, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to(database, monkeypatch)
    refusal = kpi("gateway", "--host", "192.0.2.1", "--port", "0").refusal()
    assert refusal.startswith("The gateway can't listen on port 0 of 192.0.2.1: ")
    assert "KPI_GATEWAY_HOST" in refusal
    assert secret not in refusal


def test_it_refuses_to_start_without_a_secret(
    kpi: Kpi, database: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to(database, monkeypatch)
    refusal = kpi("gateway").refusal()
    assert "`kpi webhook-secret`" in refusal
    assert "KPI_WEBHOOK_SECRET_NAME" in refusal


@pytest.mark.usefixtures("secret")
def test_it_refuses_to_start_without_a_database(kpi: Kpi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KPI_BISON_INSTANCES", "main https://mail.example")
    refusal = kpi("gateway").refusal()
    assert refusal.startswith("KPI_DATABASE_URL is not set")
    assert "`kpi up`" in refusal


def test_a_secret_of_an_instance_that_is_not_configured_is_warned_of(
    kpi: Kpi, database: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to(database, monkeypatch)
    made = secrets.token_urlsafe(32)
    monkeypatch.setenv("KPI_WEBHOOK_SECRET_APAC", made)
    with taken_port() as port:
        warned = kpi("gateway", "--port", port).err
    assert "Warning: KPI_BISON_INSTANCES does not name apac" in warned
    assert made not in warned


def test_each_secret_that_is_made_is_another_and_fits_the_settings(
    kpi: Kpi, database: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (kpi("webhook-secret").answer().strip() for _ in range(2))
    assert first != second
    point_to(database, monkeypatch)
    monkeypatch.setenv("KPI_WEBHOOK_SECRET_MAIN", first)
    with taken_port() as port:
        # All that is in the way is the port.
        assert kpi("gateway", "--port", port).refusal().startswith("Port ")
