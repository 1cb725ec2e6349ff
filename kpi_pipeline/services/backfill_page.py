"""Backfills as Dagster's page launches them and tells of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.dagster_page import DagsterPage
from kpi_pipeline.sync.scope import KpiAsset

# A launch takes as long as Dagster needs to look at each partition.
_LAUNCH_SECONDS = 600.0
_ENDED = {"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}

_LAUNCH = """
mutation Launch($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on Error { message }
  }
}
"""
_STATUS = """
query Status($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    __typename
    ... on PartitionBackfill {
      status timestamp endTimestamp
      error { message }
      assetBackfillData { assetBackfillStatuses {
        ... on AssetPartitionsStatusCounts {
          numPartitionsTargeted numPartitionsMaterialized numPartitionsFailed
        }
      } }
    }
    ... on PythonError { message }
  }
}
"""
_TARGET = """
query Target($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    __typename
    ... on PartitionBackfill {
      assetSelection { path }
      assetBackfillData { rootTargetedPartitions { partitionKeys } }
    }
    ... on PythonError { message }
  }
}
"""


class UnknownBackfillError(KpiError):
    """There is no backfill of this id, or no more."""

    def __init__(self, backfill_id: str) -> None:
        super().__init__(
            f"Dagster knows no backfill {backfill_id}. Check the id: the page lists all under "
            "Runs, Backfills."
        )


@dataclass(frozen=True)
class BackfillStatus:
    """How a backfill stands, as Dagster tells it; a partition counts once, not for each asset.

    `error` is Dagster's own trouble with the backfill, not that of a client.
    """

    name: str
    targeted: int
    filled: int
    failed: int
    launched_at: datetime
    ended_at: datetime | None = None
    error: str | None = None

    @property
    def left(self) -> int:
        """How many partitions are neither filled nor failed."""
        return self.targeted - self.filled - self.failed

    @property
    def ended(self) -> bool:
        """Whether Dagster does nothing more for it."""
        return self.name in _ENDED

    @property
    def broken_off(self) -> bool:
        """Whether it ended before its time: canceled by somebody, or given up by Dagster."""
        return self.name in ("CANCELED", "FAILED")


@dataclass(frozen=True)
class BackfillTarget:
    """What a backfill is to fill: these assets, for these dates of each workspace."""

    assets: Sequence[str]
    dates: Mapping[str, Sequence[date]]

    @property
    def partitions(self) -> int:
        """How many pairs of a workspace and a date."""
        return sum(len(dates) for dates in self.dates.values())


def launch_backfill(page: DagsterPage, target: BackfillTarget) -> str:
    """Ask Dagster for the backfill; return its id.

    Raises:
        KpiError: with Dagster's reason, if it refuses.
    """
    params = {
        "assetSelection": [{"path": [asset]} for asset in target.assets],
        "partitionNames": [
            f"{day}|{workspace}" for workspace, dates in target.dates.items() for day in dates
        ],
        "title": "kpi backfill",
    }
    answer = page.query(_LAUNCH, {"params": params}, timeout=_LAUNCH_SECONDS)
    launched = answer["launchPartitionBackfill"]
    if launched["__typename"] != "LaunchBackfillSuccess":
        reason = launched.get("message") or launched["__typename"]
        raise KpiError(f"Dagster did not start the backfill: {reason}")
    return str(launched["backfillId"])


def read_status(page: DagsterPage, backfill_id: str) -> BackfillStatus:
    """How the backfill stands.

    Raises:
        UnknownBackfillError: if Dagster does not know it (any more).
        KpiError: if the page does not answer.
    """
    told = _told(page, _STATUS, backfill_id)
    data = told["assetBackfillData"] or {"assetBackfillStatuses": []}
    # An asset without partitions has no such counts.
    counts = [it for it in data["assetBackfillStatuses"] if it]
    return BackfillStatus(
        name=told["status"],
        # The assets of a partition are filled by one step, so these differ for a moment at most.
        targeted=max((it["numPartitionsTargeted"] for it in counts), default=0),
        filled=min((it["numPartitionsMaterialized"] for it in counts), default=0),
        failed=max((it["numPartitionsFailed"] for it in counts), default=0),
        launched_at=datetime.fromtimestamp(told["timestamp"], UTC),
        ended_at=datetime.fromtimestamp(told["endTimestamp"], UTC)
        if told["endTimestamp"]
        else None,
        error=told["error"]["message"] if told["error"] else None,
    )


def read_target(page: DagsterPage, backfill_id: str) -> BackfillTarget:
    """What the backfill is to fill.

    Raises:
        UnknownBackfillError: if Dagster does not know it.
        KpiError: if it is none over clients × dates, or the page does not answer.
    """
    told = _told(page, _TARGET, backfill_id)
    targeted = (told["assetBackfillData"] or {}).get("rootTargetedPartitions") or {}
    dates: dict[str, list[date]] = {}
    for key in targeted.get("partitionKeys") or []:
        day, bar, workspace = key.partition("|")
        if bar:
            dates.setdefault(workspace, []).append(date.fromisoformat(day))
    if not dates:
        raise KpiError(
            f"Dagster cannot tell which clients and dates backfill {backfill_id} is for: it is "
            "none over the grid, or the grid has changed since. Its page tells what it did."
        )
    selected = {asset["path"][-1] for asset in told["assetSelection"] or []}
    return BackfillTarget([step.value for step in KpiAsset if step.value in selected], dates)


def backfill_address(page: DagsterPage, backfill_id: str) -> str:
    """Where a person watches the backfill."""
    return f"{page.url}/runs/b/{backfill_id}"


def _told(page: DagsterPage, query: str, backfill_id: str) -> dict[str, Any]:
    answer: dict[str, Any] = page.query(query, {"id": backfill_id})["partitionBackfillOrError"]
    if answer["__typename"] == "BackfillNotFoundError":
        raise UnknownBackfillError(backfill_id)
    if answer["__typename"] != "PartitionBackfill":
        raise KpiError(f"Dagster cannot tell of backfill {backfill_id}: {answer.get('message')}")
    return answer
