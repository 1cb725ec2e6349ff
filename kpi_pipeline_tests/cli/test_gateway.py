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
        error = kpi("gateway", "--port", port).error()
    assert error.startswith(f"Port {port} on 127.0.0.1 is in use.")
    assert "KPI_GATEWAY_PORT" in error
    assert secret not in error


def test_it_refuses_a_host_that_is_not_this_machine(
    kpi: Kpi, database: URL, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to(database, monkeypatch)
    error = kpi("gateway", "--host", "192.0.2.1", "--port", "0").error()
    assert error.startswith("The gateway can't listen on port 0 of 192.0.2.1: ")
    assert "KPI_GATEWAY_HOST" in error
    assert secret not in error


def test_it_refuses_to_start_without_a_secret(
    kpi: Kpi, database: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to(database, monkeypatch)
    error = kpi("gateway").error()
    assert "`kpi webhook-secret`" in error
    assert "KPI_WEBHOOK_SECRET_NAME" in error


@pytest.mark.usefixtures("secret")
def test_it_refuses_to_start_without_a_database(kpi: Kpi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KPI_BISON_INSTANCES", "main https://mail.example")
    error = kpi("gateway").error()
    assert error.startswith("KPI_DATABASE_URL is not set")
    assert "`kpi up`" in error


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
        assert kpi("gateway", "--port", port).error().startswith("Port ")
