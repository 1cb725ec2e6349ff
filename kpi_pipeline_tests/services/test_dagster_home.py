"""The DAGSTER_HOME of an installation: its configuration, as Dagster itself reads it."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr
from sqlalchemy import URL

from kpi_pipeline.db.server.engine import ensure_database
from kpi_pipeline.db.server.urls import for_dagster
from kpi_pipeline.orchestration.runtime.storage import (
    PooledEventLogStorage,
    RetryingRunStorage,
    RetryingScheduleStorage,
)
from kpi_pipeline.services.dagster_home import child_environment, dagster_instance
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests import PROJECT_ROOT

pytestmark = pytest.mark.runs


def instance_file() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text())
    return content


def test_runs_have_a_limit_of_time(postgres: URL, administer: Callable[[str], None]) -> None:
    storage = postgres.set(database=f"kpi_{uuid.uuid4().hex}_dagster")
    ensure_database(storage)
    settings = Settings.model_validate({"dagster_database_url": for_dagster(storage)})

    with dagster_instance(settings) as instance:
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_max_runtime_seconds == 2 * 60 * 60
        assert instance.run_monitoring_start_timeout_seconds == 180
        assert not instance.telemetry_enabled
        assert isinstance(instance.event_log_storage, PooledEventLogStorage)
        assert isinstance(instance.run_storage, RetryingRunStorage)
        assert isinstance(instance.schedule_storage, RetryingScheduleStorage)
        assert instance.run_retries_enabled
        assert not instance.run_retries_retry_on_asset_or_op_failure
    administer(f"DROP DATABASE {storage.database} WITH (FORCE)")


def test_a_home_has_the_configuration_of_this_version(tmp_path: Path) -> None:
    address = SecretStr("postgresql://kpi@db/kpi_dagster")
    settings = Settings(state_dir=tmp_path, dagster_database_url=address)
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("# of an earlier version")

    environment = child_environment(settings)

    assert environment["DAGSTER_HOME"] == str(home)
    for name in ("dagster.yaml", "workspace.yaml"):
        assert (home / name).read_bytes() == (PROJECT_ROOT / name).read_bytes()


def test_the_instance_file_has_no_address_of_a_database() -> None:
    storages = ("run_storage", "event_log_storage", "schedule_storage")
    assert [set(instance_file()[storage]) for storage in storages] == [{"module", "class"}] * 3


def test_ticks_are_kept_for_a_limited_time() -> None:
    retention = instance_file()["retention"]
    for kind in ("schedule", "sensor"):
        assert all(0 < days <= 90 for days in retention[kind]["purge_after_days"].values())
