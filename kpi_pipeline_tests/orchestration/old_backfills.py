"""Backfills that a Dagster without a daemon has stored."""

from collections.abc import Iterable
from datetime import UTC, datetime

import dagster as dg
from dagster import DagsterInstance
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.definitions.partitions.subset import DefaultPartitionsSubset
from dagster._core.definitions.timestamp import TimestampWithTimezone
from dagster._core.execution.asset_backfill import AssetBackfillData
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from kpi_pipeline.sync.scope import KpiAsset


def add_backfill(instance: DagsterInstance, status: str, partition_keys: Iterable[str]) -> str:
    """Store a backfill of the three assets in this state; return its id."""
    keys = set(partition_keys)
    assets = [dg.AssetKey(asset.value) for asset in KpiAsset]
    now = datetime.now(UTC).timestamp()
    target = AssetGraphSubset.create_empty_subset()._replace(
        partitions_subsets_by_asset_key={key: DefaultPartitionsSubset(keys) for key in assets}
    )
    backfill_id = f"backfill{int(now * 1e6)}"
    instance.add_backfill(
        PartitionBackfill(
            backfill_id=backfill_id,
            status=BulkActionStatus(status),
            from_failure=False,
            tags={},
            backfill_timestamp=now,
            asset_selection=assets,
            asset_backfill_data=AssetBackfillData(
                target_subset=target,
                requested_runs_for_target_roots=True,
                latest_storage_id=None,
                materialized_subset=AssetGraphSubset.create_empty_subset(),
                requested_subset=AssetGraphSubset.create_empty_subset(),
                failed_and_downstream_subset=AssetGraphSubset.create_empty_subset(),
                backfill_start_time=TimestampWithTimezone(now, "UTC"),
            ),
        )
    )
    return backfill_id
