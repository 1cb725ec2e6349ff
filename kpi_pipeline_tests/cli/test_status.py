"""`kpi status`: freshness, the last syncs, failing checks, and late schedules and sensors."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import URL, Engine

from kpi_pipeline.app import AppContext
from kpi_pipeline.cli.status import print_status
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.sync_log import SyncEntry, store_entry
from kpi_pipeline.orchestration.runtime import storage
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.alerts.support import Office
from kpi_pipeline_tests.cli.running import Kpi, days_ago
from kpi_pipeline_tests.db.stocked import imported, record, stock_metrics

pytestmark = pytest.mark.server

NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def _stocked(configured: URL, engine: Engine, vault: Vault) -> None:
    """Two clients, synced just now; one of them failed an hour before."""
    assert configured.database
    imported(engine, vault, record(101, "Acme"), record(102, "Birch"))
    for workspace in ("acme", "birch"):
        for days in range(3):
            stock_metrics(engine, workspace, days_ago(days), display_name=workspace, as_of=NOW)
    with engine.begin() as connection:
        store_entry(connection, entry("early", "birch", "birch: its key was rejected", 60))
        store_entry(connection, entry("late", "acme", None, 1))
        store_entry(connection, entry("late", "birch", None, 0))


def entry(run: str, workspace: str, error: str | None, minutes_ago: float) -> SyncEntry:
    return SyncEntry(
        run_id=run,
        workspace=workspace,
        first_date=days_ago(1),
        last_date=days_ago(0),
        error=error,
        key_used="workspace",
        api_calls=3,
        seconds=2.0,
        waiting_seconds=0.0,
        calling_seconds=1.0,
        finished_at=NOW - timedelta(minutes=minutes_ago),
    )


def test_it_shows_each_client_each_run_each_failing_check_and_what_never_ticked(
    kpi: Kpi, engine: Engine, vault: Vault
) -> None:
    Office(engine, vault, []).check("complete", "acme", description="1 of 2 clients has rows.")
    result = kpi("status")
    screen = " ".join(result.out.split())
    assert re.search(
        r"│ acme │ \S+ \S+ │ \d min │ fresh │ \S+ \S+ ok, 3 calls, workspace key │", screen
    )
    assert "2 of 2 clients fresh" in result.out
    assert "birch: its key was rejected" in result.out
    assert "Checks: 0 of 1 pass" in result.out
    assert "ERROR complete since" in result.out
    assert "1 of 2 clients has rows." in result.out
    # Nobody has ever started Dagster here.
    assert "schedule daily_kpi_sync has never ticked" in result.out
    assert result.code == 1


def test_it_fails_while_a_client_is_stale_and_says_for_how_long(
    engine: Engine, vault: Vault, capsys: pytest.CaptureFixture[str]
) -> None:
    with ready_databases(load_settings()) as settings:
        later = AppContext(settings, engine, vault, lambda: NOW + timedelta(hours=4))
        assert not print_status(later)
    screen = capsys.readouterr().out
    assert "0 of 2 clients fresh" in screen
    assert "its numbers are 4 h 0 min old" in screen


def test_without_dagsters_database_it_still_shows_what_the_tables_hold(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_DAGSTER_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    # What it does while Dagster's database restarts, other tests see.
    monkeypatch.setattr(storage, "retry_while_disconnected", lambda work: work())
    result = kpi("status")
    assert "2 of 2 clients fresh" in result.out
    assert "Dagster's database is unreachable" in result.out
    assert result.code == 1
