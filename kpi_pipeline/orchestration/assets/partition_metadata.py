"""The metadata of each partition: what Dagster's page shows of one client's day."""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg

from kpi_pipeline.orchestration.partitions import DATE, WORKSPACE
from kpi_pipeline.sync.scope import KpiAsset

if TYPE_CHECKING:
    from kpi_pipeline.sync.run import ClientOutcome


def partition(workspace: str, day: date) -> dg.MultiPartitionKey:
    """The partition key of one client's day."""
    return dg.MultiPartitionKey({DATE: day.isoformat(), WORKSPACE: workspace})


def materializations(
    asset: KpiAsset, outcomes: Sequence["ClientOutcome"]
) -> list[dg.AssetMaterialization]:
    """One for each partition that a run filled."""
    filled = []
    for outcome in outcomes:
        if outcome.error is not None:
            continue
        for day, numbers in outcome.numbers.items():
            metadata: dict[str, Any] = {
                "dagster/partition_row_count": 1,
                "emails_sent": numbers.emails_sent,
                "positive_replies": numbers.positive_replies,
                "seconds": outcome.seconds,
            }
            if asset is KpiAsset.FACTS:
                metadata |= {
                    "api_calls": outcome.api_calls,
                    "key_used": outcome.key_used,
                    "waiting_seconds": outcome.waiting_seconds,
                    "calling_seconds": outcome.calling_seconds,
                }
            else:
                metadata |= {
                    "positive_replies_mtd": numbers.positive_replies_mtd,
                    "projection_positive_replies_eom": numbers.projection_positive_replies_eom,
                }
            filled.append(
                dg.AssetMaterialization(
                    asset.value,
                    partition=partition(outcome.workspace, day),
                    metadata={name: it for name, it in metadata.items() if it is not None},
                )
            )
    return filled
