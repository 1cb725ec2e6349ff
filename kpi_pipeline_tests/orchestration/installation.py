import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
from dagster import DagsterInstance
from dagster._core.instance import InstanceType
from dagster._core.launcher.sync_in_memory_run_launcher import SyncInMemoryRunLauncher
from dagster._core.run_coordinator import DefaultRunCoordinator
from dagster._core.storage.event_log import InMemoryEventLogStorage
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._core.storage.root import LocalArtifactStorage
from dagster._core.storage.runs import InMemoryRunStorage
from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import SqliteScheduleStorage
from sqlalchemy import text

from kpi_pipeline.definitions import build_definitions
from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline.orchestration.partitions import WORKSPACE, sync_workspace_partitions
from kpi_pipeline.settings import load_settings
from kpi_pipeline.sync.scope import KpiAsset
from kpi_pipeline_tests.agency import Agency

ASSETS = [step.value for step in KpiAsset]


def calm_zone() -> ZoneInfo:
    """A business time zone whose midnight is hours away: no test runs through one."""
    zones = (ZoneInfo("America/Chicago"), ZoneInfo("Asia/Tokyo"))
    return next(zone for zone in zones if 0 < datetime.now(zone).hour < 22)


class Installation:
    """The real definitions on the environment of the test, and a Dagster of its own."""

    def __init__(self, agency: Agency, instance: DagsterInstance) -> None:
        self.agency = agency
        self.instance = instance
        self.today = business_date(datetime.now(UTC), agency.app.timezone)
        self.definitions = build_definitions(load_settings())
        grid = self.definitions.resolve_assets_def(ASSETS[0]).partitions_def
        assert isinstance(grid, dg.MultiPartitionsDefinition)
        self.grid = grid
        sync_workspace_partitions(instance, agency.workspaces)
        self.workspaces = list(instance.get_dynamic_partitions(WORKSPACE))

    def days_ago(self, *days: int) -> list[date]:
        """Business days, in the order of time."""
        return sorted(self.today - timedelta(days=count) for count in days)

    def run(
        self,
        tags: Mapping[str, str] | None = None,
        assets: Sequence[str] = ASSETS,
        partition: str | None = None,
        *,
        checks: bool = True,
    ) -> dg.ExecuteInProcessResult:
        """Carry out one run of the assets and their checks, whatever comes of it."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        chosen = [dg.AssetKey(name) for name in assets]
        if not checks:
            job = job.get_subset(asset_selection=set(chosen), asset_check_selection=set())
        return job.execute_in_process(
            instance=self.instance,
            # A run of a subset notes no selection of its own.
            asset_selection=chosen if checks else None,
            tags=dict(tags or {}),
            partition_key=partition,
            raise_on_error=False,
        )

    def partitions(self, asset: str) -> tuple[set[str], set[str]]:
        """Which partitions the asset's page shows as materialized, and which as failed."""
        key = dg.AssetKey(asset)
        value = get_and_update_asset_status_cache_value(
            self.instance, key, self.grid, self.instance
        )
        assert value is not None
        materialized = value.deserialize_materialized_partition_subsets(self.grid)
        failed = value.deserialize_failed_partition_subsets(self.grid)
        return set(materialized.get_partition_keys()), set(failed.get_partition_keys())

    def metadata(self, asset: str) -> dict[str, dict[str, object]]:
        """The metadata of each partition's latest materialization."""
        found: dict[str, dict[str, object]] = {}
        for record in self.instance.fetch_materializations(dg.AssetKey(asset), limit=1000).records:
            materialization = record.asset_materialization
            assert materialization is not None
            assert materialization.partition is not None
            values = materialization.metadata.items()
            numbers: dict[str, object] = {name: value.value for name, value in values}
            found.setdefault(materialization.partition, numbers)
        return found

    def failure(self, result: dg.ExecuteInProcessResult) -> str:
        """What the failed step says of itself."""
        (event,) = [event for event in result.all_events if event.is_step_failure]
        data = event.step_failure_data.user_failure_data
        assert data is not None
        assert data.description is not None
        return data.description


def cells(workspaces: Sequence[str], dates: Sequence[date]) -> set[str]:
    """The partition keys of a block."""
    return {f"{day}|{workspace}" for day in dates for workspace in workspaces}


def counts(installation: Installation) -> dict[str, int]:
    """How many rows each of the three tables has."""
    with installation.agency.app.engine.connect() as connection:
        return {
            name: connection.scalar(text(f"SELECT count(*) FROM {name}")) or 0 for name in ASSETS
        }


@contextmanager
def instance_in_files() -> Iterator[DagsterInstance]:
    """A Dagster in a folder of its own, for what is opened a second time or knows of daemons."""
    with DagsterInstance.local_temp(overrides={"telemetry": {"enabled": False}}) as instance:
        yield instance


@contextmanager
def temporary_instance() -> Iterator[DagsterInstance]:
    """A Dagster in memory but for its ticks; one in files takes a second of processor time."""
    with (
        tempfile.TemporaryDirectory() as folder,
        DagsterInstance(
            instance_type=InstanceType.EPHEMERAL,
            local_artifact_storage=LocalArtifactStorage(folder),
            run_storage=InMemoryRunStorage(),
            event_storage=InMemoryEventLogStorage(),
            schedule_storage=SqliteScheduleStorage.from_local(folder),
            compute_log_manager=NoOpComputeLogManager(),
            run_coordinator=DefaultRunCoordinator(),
            run_launcher=SyncInMemoryRunLauncher(),
        ) as instance,
    ):
        yield instance
