"""Backfills of Dagster: launched over its page, watched to their end, and the runs they caused."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import OperationalError

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.sync_log import read_entries
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.dagster_page import DagsterPage, PageSilentError
from kpi_pipeline.services.running_dagster import RunningDagster, heartbeats
from kpi_pipeline.sync.scope import KpiAsset

if TYPE_CHECKING:
    # Imported late below: it takes more than a second, and the command line names these functions.
    from dagster import DagsterInstance, RunRecord

# Dagster checks each partition before it answers.
_LAUNCH_SECONDS = 600.0
_POLL_SECONDS = 2.0
_UNREACHABLE_AT_MOST = timedelta(seconds=60)
_SILENCE_SECONDS_AT_MOST = 120.0
_RETRIES_AT_MOST = timedelta(minutes=5)
# The sensor that starts retries runs every 15 s, in a process that Dagster starts for it.
_RETRIES_START_IN = timedelta(seconds=45)
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
      assetBackfillData { rootTargetedPartitions { partitionKeys } }
    }
    ... on PythonError { message }
  }
}
"""


class UnknownBackfillError(KpiError):
    """Dagster has no backfill of this id."""

    def __init__(self, backfill_id: str) -> None:
        super().__init__(
            f"Dagster knows no backfill {backfill_id}. Check the id: Dagster's page lists all "
            "backfills under Runs, Backfills."
        )


@dataclass(frozen=True)
class BackfillStatus:
    """The state of a backfill as Dagster reports it; a partition counts once, not per asset.

    `error` is Dagster's own problem with the backfill, not that of a client.
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
        """Whether it ended early: canceled by a person, or given up by Dagster."""
        return self.name in ("CANCELED", "FAILED")


@dataclass(frozen=True)
class BackfillTarget:
    """The dates of each workspace that a backfill fills, in all three assets."""

    dates: Mapping[str, Sequence[date]]

    @property
    def partitions(self) -> int:
        """How many pairs of a workspace and a date."""
        return sum(len(dates) for dates in self.dates.values())


def launch_backfill(page: DagsterPage, target: BackfillTarget) -> str:
    """Launch the backfill; return its id.

    Raises:
        KpiError: with Dagster's reason, if it does not accept it.
    """
    params = {
        "assetSelection": [{"path": [asset.value]} for asset in KpiAsset],
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
    """Read the state of a backfill.

    Raises:
        UnknownBackfillError: if Dagster does not know it (any more).
        KpiError: if the page does not answer.
    """
    found = _read(page, _STATUS, backfill_id)
    data = found["assetBackfillData"] or {"assetBackfillStatuses": []}
    # An asset without partitions has no such counts.
    counts = [it for it in data["assetBackfillStatuses"] if it]
    ended_at = found["endTimestamp"]
    return BackfillStatus(
        name=found["status"],
        # One step fills all assets of a partition, so these differ for a moment at most.
        targeted=max((it["numPartitionsTargeted"] for it in counts), default=0),
        filled=min((it["numPartitionsMaterialized"] for it in counts), default=0),
        failed=max((it["numPartitionsFailed"] for it in counts), default=0),
        launched_at=datetime.fromtimestamp(found["timestamp"], UTC),
        ended_at=datetime.fromtimestamp(ended_at, UTC) if ended_at else None,
        error=found["error"]["message"] if found["error"] else None,
    )


def read_target(page: DagsterPage, backfill_id: str) -> BackfillTarget:
    """Read which partitions the backfill fills, whichever asset it was started for.

    Raises:
        UnknownBackfillError: if Dagster does not know it.
        KpiError: if it is not one over clients × dates, or the page does not answer.
    """
    found = _read(page, _TARGET, backfill_id)
    targeted = (found["assetBackfillData"] or {}).get("rootTargetedPartitions") or {}
    dates: dict[str, list[date]] = {}
    for partition_key in targeted.get("partitionKeys") or []:
        day, bar, workspace = partition_key.partition("|")
        if bar:
            dates.setdefault(workspace, []).append(date.fromisoformat(day))
    if not dates:
        raise KpiError(
            f"Dagster cannot say which clients and dates backfill {backfill_id} fills: it is not "
            "one over clients and dates, or the partitions have changed since. See its page."
        )
    return BackfillTarget(dates)


def backfill_address(page: DagsterPage, backfill_id: str) -> str:
    """The address at which a person watches the backfill."""
    return f"{page.url}/runs/b/{backfill_id}"


def _read(page: DagsterPage, query: str, backfill_id: str) -> dict[str, Any]:
    answer: dict[str, Any] = page.query(query, {"id": backfill_id})["partitionBackfillOrError"]
    if answer["__typename"] == "BackfillNotFoundError":
        raise UnknownBackfillError(backfill_id)
    if answer["__typename"] != "PartitionBackfill":
        raise KpiError(f"Dagster cannot read backfill {backfill_id}: {answer.get('message')}")
    return answer


def watch_backfill(
    app: AppContext,
    dagster_instance: "DagsterInstance",
    dagster: RunningDagster,
    backfill_id: str,
    show: Callable[[BackfillStatus, int], None],
    sleep: Callable[[float], None] = time.sleep,
) -> BackfillStatus:
    """Poll the backfill until it has ended; return its last status.

    `show` gets each status, with the number of API calls so far.

    Raises:
        KpiError: if Dagster stops, or its page or a database is unreachable for a minute.
    """

    from dagster_postgres.utils import DagsterPostgresException

    last_answer = last_change = app.now()
    beats: dict[str, float] = {}
    while True:
        try:
            dagster.require_alive()
            status = read_status(dagster.page, backfill_id)
            with app.engine.connect() as connection:
                entries = read_entries(connection, launched_runs(dagster_instance, backfill_id))
            found = heartbeats(dagster_instance)
        except (PageSilentError, OperationalError, DagsterPostgresException) as error:
            if app.now() - last_answer < _UNREACHABLE_AT_MOST:
                sleep(_POLL_SECONDS)
                continue
            if isinstance(error, PageSilentError):
                raise
            raise KpiError(
                "The database has been unreachable for a minute. Check that it runs."
            ) from None
        last_answer = app.now()
        show(status, sum(entry.api_calls for entry in entries))
        if status.ended:
            return status
        if found != beats:
            # Their times are those of the daemon's machine, whose clock may be wrong.
            beats, last_change = found, last_answer
        silence = (app.now() - last_change).total_seconds()
        if silence > _SILENCE_SECONDS_AT_MOST:
            raise KpiError(
                f"Dagster's daemon has sent no heartbeat for {silence:.0f} s, so the backfill "
                "makes no progress. Start Dagster again with `kpi up`."
            )
        sleep(_POLL_SECONDS)


def launched_runs(dagster_instance: "DagsterInstance", backfill_id: str) -> Sequence[str]:
    """The ids of the runs that Dagster launched for the backfill."""
    from dagster import RunsFilter

    from kpi_pipeline.orchestration.runs import BACKFILL

    return dagster_instance.get_run_ids(RunsFilter(tags={BACKFILL: backfill_id}))


def all_runs(dagster_instance: "DagsterInstance", backfill_id: str) -> list[str]:
    """The ids of the backfill's runs, and of the runs that retry what failed in them."""
    launched = launched_runs(dagster_instance, backfill_id)
    retries = _retries(dagster_instance, launched)
    return [*launched, *(record.dagster_run.run_id for record in retries)]


def wait_for_retries(
    dagster_instance: "DagsterInstance",
    backfill_id: str,
    now: Callable[[], datetime],
    sleep: Callable[[float], None] = time.sleep,
    *,
    sensor_since: datetime | None = None,
) -> bool:
    """Wait for the runs that retry what failed; five minutes at most.

    A sensor starts them, one for each failed run. `sensor_since` is when its Dagster was started,
    if that was after the backfill began. Returns whether all of them have ended.
    """
    deadline = now() + _RETRIES_AT_MOST
    while _more_to_come(dagster_instance, backfill_id, now(), sensor_since):
        if now() >= deadline:
            return False
        sleep(_POLL_SECONDS)
    return True


def _more_to_come(
    dagster_instance: "DagsterInstance",
    backfill_id: str,
    now: datetime,
    sensor_since: datetime | None,
) -> bool:
    from dagster import DagsterRunStatus, RunsFilter

    from kpi_pipeline.orchestration.partitions import WORKSPACE, block_from_tags
    from kpi_pipeline.orchestration.runs import BACKFILL, RETRY_OF

    retries = _retries(dagster_instance, launched_runs(dagster_instance, backfill_id))
    if not all(record.dagster_run.is_finished for record in retries):
        return True
    retried = {record.dagster_run.tags[RETRY_OF] for record in retries}
    order = dagster_instance.get_dynamic_partitions(WORKSPACE)
    for record in dagster_instance.get_run_records(
        RunsFilter(tags={BACKFILL: backfill_id}, statuses=[DagsterRunStatus.FAILURE])
    ):
        covered = block_from_tags(record.dagster_run.tags, order)
        # A failed run over one client is not retried.
        if covered is None or len(covered.workspaces) == 1 or record.dagster_run.run_id in retried:
            continue
        failed_at = datetime.fromtimestamp(record.end_time or 0, UTC)
        if now < max(failed_at, sensor_since or failed_at) + _RETRIES_START_IN:
            return True
    return False


def _retries(dagster_instance: "DagsterInstance", run_ids: Sequence[str]) -> Sequence["RunRecord"]:
    """The runs that retry what failed in these."""
    from dagster import RunsFilter

    from kpi_pipeline.orchestration.runs import RETRY_OF

    if not run_ids:
        return []
    return dagster_instance.get_run_records(RunsFilter(tags={RETRY_OF: list(run_ids)}))
