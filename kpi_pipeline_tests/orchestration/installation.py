"""The real definitions in the test's own process, on an agency and a Dagster of its own."""

import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
from dagster import DagsterInstance
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import SqliteScheduleStorage

from kpi_pipeline.definitions import build_definitions
from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.domain.events.event import Event, EventSource, EventStatus
from kpi_pipeline.inbox.ingest import inbox_of, ingest
from kpi_pipeline.orchestration.partitions import WORKSPACE, add_workspaces
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.agency import ASSETS, Agency

_BUILT: dict[str, dg.Definitions] = {}
# They differ from test to test, and no definition depends on them.
_OF_A_TEST = {"state_dir", "database_url", "secret_key"}


def shared_definitions() -> dg.Definitions:
    """The definitions for the settings of the environment, which tests with the same ones share."""
    settings = load_settings()
    # The grid ends at this date.
    today = business_date(utc_now(), settings.day_zone)
    described = f"{today} {settings.model_dump(exclude=_OF_A_TEST)}"
    if described not in _BUILT:
        _BUILT[described] = build_definitions(settings)
    return _BUILT[described]


class Installation:
    """The real definitions, with the settings of the environment."""

    def __init__(self, agency: Agency, instance: DagsterInstance) -> None:
        self.agency = agency
        self.instance = instance
        self.today = agency.today
        self.definitions = shared_definitions()
        grid = self.definitions.resolve_assets_def(ASSETS[0]).partitions_def
        assert isinstance(grid, dg.MultiPartitionsDefinition)
        self.grid = grid
        add_workspaces(instance, agency.workspaces)
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
        config: Mapping[str, object] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Execute one run of the assets and their checks, which may fail."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        chosen = [dg.AssetKey(name) for name in assets]
        if not checks:
            job = job.get_subset(asset_selection=set(chosen), asset_check_selection=set())
        return job.execute_in_process(
            instance=self.instance,
            # A run of a subset stores no selection of its own.
            asset_selection=chosen if checks else None,
            tags=dict(tags or {}),
            partition_key=partition,
            run_config=config,
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

    def under_way(self, asset: str) -> set[str]:
        """Which partitions the asset's page shows as being materialized."""
        key = dg.AssetKey(asset)
        value = get_and_update_asset_status_cache_value(
            self.instance, key, self.grid, self.instance
        )
        assert value is not None
        return set(value.deserialize_in_progress_partition_subsets(self.grid).get_partition_keys())

    def metadata(self, asset: str) -> dict[str, dict[str, object]]:
        """The metadata of each partition's latest materialization."""
        records = self.instance.fetch_materializations(dg.AssetKey(asset), limit=1000).records
        events = [it for record in reversed(records) if (it := record.asset_materialization)]
        return {
            str(it.partition): {name: value.value for name, value in it.metadata.items()}
            for it in events
        }

    def failure(self, result: dg.ExecuteInProcessResult) -> str:
        """The error of the failed step."""
        (event,) = [event for event in result.all_events if event.is_step_failure]
        data = event.step_failure_data.user_failure_data
        assert data is not None
        assert data.description is not None
        return data.description

    def store(self, *events: Event, realtime: bool = False) -> list[int]:
        """Store events as the gateway does, by default with KPI_REALTIME off; their ids."""
        inbox = inbox_of(self.agency.app, realtime=realtime)
        return [receipt.event_id for receipt in ingest(inbox, events)]

    def statuses(self) -> dict[int, str]:
        """The status of each stored event."""
        return {row.id: row.status for row in self.agency.sql("SELECT * FROM webhook_events")}

    def leads_this_month(self, workspace: str) -> int:
        """The client's positive replies of the month, in today's row."""
        return int(self.agency.rows()[workspace, self.today]["positive_replies_mtd"])


def cells(workspaces: Sequence[str], dates: Sequence[date]) -> set[str]:
    """The partition keys of a block."""
    return {f"{day}|{workspace}" for day in dates for workspace in workspaces}


def lead(workspace_id: int, day: date, **changed: Any) -> Event:
    """A lead of the workspace turned interested on that day; it arrives now."""
    fields: dict[str, Any] = {
        "instance": "main",
        "source": EventSource.WEBHOOK,
        "arrived_at": datetime.now(UTC),
        "body": b"{}",
        "idempotency_key": secrets.token_hex(8),
        "status": EventStatus.RECEIVED,
        "business_date": day,
        "event_type": "lead_interested",
        "bison_workspace_id": workspace_id,
        "metric": "interested",
    }
    return Event(**{**fields, **changed})


def rows_of(table: object) -> list[dict[str, object]]:
    """The rows of a table in metadata."""
    assert isinstance(table, dg.TableMetadataValue)
    return [dict(record.data) for record in table.records]


@contextmanager
def instance_in_files() -> Iterator[DagsterInstance]:
    """A Dagster in a folder of its own, for what opens it a second time or needs daemons."""
    with DagsterInstance.local_temp(overrides={"telemetry": {"enabled": False}}) as instance:
        yield instance


@contextmanager
def temporary_instance() -> Iterator[DagsterInstance]:
    """A Dagster in memory except for its ticks; one in files takes a second of processor time."""
    with (
        tempfile.TemporaryDirectory() as folder,
        DagsterInstance.ephemeral(folder) as instance,
    ):
        ticks = SqliteScheduleStorage.from_local(folder)
        instance._schedule_storage = ticks
        ticks.register_instance(instance)
        yield instance
