"""What commands say and refuse where Email Bison's days are not those of the agency."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import URL, Engine

from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline_tests.cli.running import Kpi
from kpi_pipeline_tests.db.stocked import imported, record, stock_facts

pytestmark = pytest.mark.server

# 26 hours apart: their dates always differ.
WEST, EAST = "Etc/GMT+12", "Pacific/Kiritimati"
SETTINGS = {
    "KPI_TIMEZONE": WEST,
    "KPI_BISON_INSTANCES": "main https://mail.example",
    "KPI_WEBHOOK_SECRET_MAIN": "abcdefghijklmnopqrstuvwxyz012345",
    "KPI_WEB_PORT": "0",
    "KPI_GATEWAY_PORT": "0",
}


@pytest.fixture(autouse=True)
def _stocked(
    configured: URL, engine: Engine, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert configured.database
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    imported(engine, vault, record(101, "Acme"))


@pytest.fixture
def with_facts(kpi: Kpi, engine: Engine) -> None:
    """The first start was without data; facts were stored afterwards."""
    kpi("metrics").answer()
    with engine.begin() as connection:
        stock_facts(connection, "acme", date(2026, 3, 1), date(2026, 3, 18))


def today_in(zone: str) -> date:
    return business_date(datetime.now(UTC), ZoneInfo(zone))


@pytest.mark.parametrize(
    ("command", "days", "form"),
    [("metrics", 0, "%Y-%m-%d"), ("status", 0, "%Y-%m-%d"), ("summary", 1, "%A, %d %B %Y")],
)
def test_a_command_that_shows_today_says_whose_day_it_is(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch, command: str, days: int, form: str
) -> None:
    def shown() -> str:
        day = today_in(EAST) - timedelta(days=days)
        return f"{day:{form}} (Email Bison's day, {EAST})"

    monkeypatch.setenv("KPI_BISON_TIMEZONE", EAST)
    # Midnight may pass meanwhile.
    before, result, after = shown(), kpi(command), shown()
    said = " ".join(f"{result.out} {result.err}".split())
    assert before in said or after in said
    assert (f"times are those of {WEST}" in said) is (command == "status")


def test_where_both_zones_are_the_same_no_command_mentions_them(kpi: Kpi) -> None:
    for command in ("metrics", "status", "summary"):
        result = kpi(command)
        assert WEST not in result.out + result.err


@pytest.mark.usefixtures("with_facts")
@pytest.mark.parametrize(
    "words",
    [["metrics"], ["sync"], ["recompute"], ["events", "replay"], ["gateway"], ["up"]],
    ids=" ".join,
)
def test_after_a_change_of_zone_nothing_starts_before_the_dates_are_moved(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch, words: Sequence[str]
) -> None:
    monkeypatch.setenv("KPI_BISON_TIMEZONE", EAST)
    error = kpi(*words).error()
    assert error.startswith(f"The stored dates are days of {WEST}, and the settings now say {EAST}")
    assert "`kpi recompute --adopt-timezone`" in error


@pytest.mark.usefixtures("with_facts")
def test_the_status_after_a_change_of_zone_is_an_error_that_says_so(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_BISON_TIMEZONE", EAST)
    result = kpi("status")
    assert result.code == 2
    assert result.err.startswith(f"Error: The stored dates are days of {WEST}, and the settings")


@pytest.mark.usefixtures("with_facts")
def test_adopting_the_zone_says_what_moved_and_lets_commands_start(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_BISON_TIMEZONE", EAST)
    assert kpi("recompute", "--adopt-timezone").answer() == (
        f"All stored dates are days of {EAST} (before: {WEST}): 0 events moved to another day, "
        "and 0 rows computed again.\n"
    )
    kpi("metrics").answer()
    # The other zone concerns no stored date.
    monkeypatch.setenv("KPI_TIMEZONE", "America/Chicago")
    kpi("metrics").answer()


def test_the_dates_of_some_clients_cannot_be_moved_alone(kpi: Kpi) -> None:
    error = kpi("recompute", "--adopt-timezone", "-w", "acme").error()
    assert "give it alone" in error
