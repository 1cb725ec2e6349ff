"""`kpi dagster rebuild`, and what is said before it, on a real PostgreSQL."""

from collections.abc import Iterator

import dagster as dg
import pytest
from dagster import DagsterInstance
from sqlalchemy import URL, Engine, func, select

from kpi_pipeline.app import open_app
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.tables import client_metrics
from kpi_pipeline.orchestration.dagster_private import SqlEventLogStorageTable
from kpi_pipeline.orchestration.rebuild import _agrees, grid_gap
from kpi_pipeline.orchestration.runtime.storage import PooledEventLogStorage
from kpi_pipeline.services.dagster_home import dagster_instance
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.agency import ASSETS
from kpi_pipeline_tests.cli.running import Kpi, days_ago
from kpi_pipeline_tests.db.stocked import imported, record, stock_facts, stock_metrics

pytestmark = pytest.mark.server


@pytest.fixture(autouse=True)
def _stocked(configured: URL, engine: Engine, vault: Vault) -> None:
    """Two clients × four dates, today included; no run was ever made here."""
    imported(engine, vault, record(101, "Acme"), record(102, "Birch"))
    for workspace in ("acme", "birch"):
        for days in range(4):
            stock_metrics(engine, workspace, days_ago(days), display_name=workspace)
        with engine.begin() as connection:
            stock_facts(connection, workspace, days_ago(3), days_ago(0))


@pytest.fixture
def instance(_stocked: None) -> Iterator[DagsterInstance]:
    with ready_databases(load_settings()) as settings, dagster_instance(settings) as opened:
        yield opened


def _shown(instance: DagsterInstance) -> list[set[str]]:
    return [set(instance.get_materialized_partitions(dg.AssetKey(it))) for it in ASSETS]


def _gap(instance: DagsterInstance) -> str:
    """What the start and `kpi status` say."""
    with ready_databases(load_settings()) as settings, open_app(settings) as app:
        return str(grid_gap(app, instance))


def test_it_reports_each_row_in_batches_and_what_is_missing_is_said_before(
    kpi: Kpi, instance: DagsterInstance
) -> None:
    missing = (
        "6 rows of past days are stored, and Dagster's grid shows 0 of them: run `kpi dagster "
        "rebuild`, which makes no call to Email Bison."
    )
    assert _gap(instance) == missing
    assert kpi("dagster", "rebuild", "--dry-run").answer() == (
        "Would report 24 partitions of 2 clients: 8 of raw_bison_stats, 8 of kpi_projections, 8 of "
        "client_metrics.\n"
    )
    assert _shown(instance) == [set()] * 3

    assert kpi("dagster", "rebuild").answer().startswith("Reported 24 partitions of 2 clients")

    wanted = {f"{days_ago(days)}|{it}" for days in range(4) for it in ("acme", "birch")}
    assert _shown(instance) == [wanted] * 3
    assert _gap(instance) == "None"
    assert kpi("dagster", "rebuild").answer() == (
        "Nothing to report: no partition of 8 rows is missing.\n"
    )
    storage = instance.event_log_storage
    assert isinstance(storage, PooledEventLogStorage)
    with storage.index_connection() as connection:
        events = connection.scalar(select(func.count()).select_from(SqlEventLogStorageTable))
    assert events == 24


def test_checksums_tell_a_grid_that_agrees_from_one_that_lacks_a_day_or_has_another(
    kpi: Kpi, instance: DagsterInstance, engine: Engine
) -> None:
    kpi("dagster", "rebuild").answer()
    with ready_databases(load_settings()) as settings, open_app(settings) as app:
        first, last = days_ago(300), days_ago(1)

        def agree() -> bool:
            with app.engine.connect() as connection:
                return _agrees(connection, instance, first, last)

        assert agree()
        # As many days as before, but others.
        with engine.begin() as connection:
            connection.execute(
                client_metrics.update()
                .where(client_metrics.c.metric_date == days_ago(3))
                .values(metric_date=days_ago(30))
            )
        assert not agree()
        instance.wipe_assets([dg.AssetKey("client_metrics")])
        assert not agree()
        kpi("dagster", "rebuild").answer()
        instance.wipe_assets([dg.AssetKey("raw_bison_stats")])
        assert not agree()
