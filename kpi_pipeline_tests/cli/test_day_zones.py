"""What commands say and refuse where Email Bison's days are not those of the agency."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import URL, Engine

from kpi_pipeline.db.vault import Vault
from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline_tests.cli.running import Kpi
from kpi_pipeline_tests.db.stocked import imported, record, stock_facts

# Their dates always differ.
WEST, EAST = "Etc/GMT+12", "Pacific/Kiritimati"
SETTINGS = {
    "KPI_BISON_INSTANCES": "main https://mail.example",
    "KPI_WEBHOOK_SECRET_MAIN": "abcdefghijklmnopqrstuvwxyz012345",
    "KPI_WEB_PORT": "0",
    "KPI_GATEWAY_PORT": "0",
}


@pytest.fixture(autouse=True)
def _stocked(configured: URL, engine: Engine, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    assert configured.database
    monkeypatch.setenv("KPI_TIMEZONE", WEST)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    imported(engine, vault, record(101, "Acme"))


@pytest.fixture
def with_facts(kpi: Kpi, engine: Engine) -> None:
    """The first start was without data; then facts were stored."""
    kpi("metrics").answer()
    with engine.begin() as connection:
        stock_facts(connection, "acme", date(2026, 3, 1), date(2026, 3, 18))


def one_of_todays(zone: str, shown: Callable[[date], str], text: str) -> bool:
    """Whether the text has today in that zone; midnight may have passed meanwhile."""
    now = datetime.now(UTC)
    dates = [business_date(now, ZoneInfo(zone))]
    return any(shown(day) in text for day in dates)


@pytest.mark.parametrize("command", ["metrics", "status", "summary"])
def test_a_command_that_shows_today_says_whose_day_it_is(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("KPI_BISON_TIMEZONE", EAST)
    before = business_date(datetime.now(UTC), ZoneInfo(EAST))
    result = kpi(command)
    after = business_date(datetime.now(UTC), ZoneInfo(EAST))
    said = " ".join(f"{result.out} {result.err}".split())
    (day,) = set(re.findall(r"([\w-]+(?: \w+ \d{4})?) \(Email Bison's day, Pacific/Kiritimati\)", said))
    if command == "summary":
        return
    assert before.isoformat() <= day <= after.isoformat()
    if command == "status":
        assert f"times are those of {WEST}" in said
