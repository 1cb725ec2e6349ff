"""`kpi summary`: the text that is sent each morning."""

from datetime import date
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import URL, Engine

from kpi_pipeline.alerts.summary import read_summary, summary_text
from kpi_pipeline.db.recompute import write_rows
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline_tests.cli.running import Kpi, address, calm_zone, days_ago
from kpi_pipeline_tests.db.stocked import imported, record, stock_facts

DAY = date(2026, 3, 17)
CHICAGO = ZoneInfo("America/Chicago")


@pytest.fixture(autouse=True)
def _stocked(database: URL, engine: Engine, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KPI_DATABASE_URL", address(database))
    imported(engine, vault, record(101, "Acme [EU]"), record(102, "Birch"))
    with engine.begin() as connection:
        stock_facts(connection, "acme-eu")
        write_rows(connection, {"acme-eu": [DAY]}, CHICAGO, "sync")


def test_it_prints_the_text_that_is_sent(kpi: Kpi, engine: Engine) -> None:
    with engine.connect() as connection:
        sent = summary_text(read_summary(connection, DAY), CHICAGO, CHICAGO)
    printed = kpi("summary", "--date", "2026-03-17").answer()
    assert printed == f"{sent.title}\n{sent.body}\n"
    assert "- Acme [EU]: 100 emails sent, – replies, 3 positive replies; month 51 of 60" in printed


def test_without_a_date_it_is_yesterdays(kpi: Kpi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KPI_TIMEZONE", calm_zone().key)
    printed = kpi("summary").answer()
    assert printed.startswith(f"KPIs of {days_ago(1):%A, %d %B %Y}\n0 of 2 clients have numbers.")
