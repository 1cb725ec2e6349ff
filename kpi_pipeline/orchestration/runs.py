"""The tags of runs, Dagster's and ours, and the states of a run."""

from dagster import AssetKey, DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from kpi_pipeline.sync.scope import KpiAsset

# Dagster's own, as its documentation and its page show them.
BACKFILL = "dagster/backfill"
PARENT_RUN = "dagster/parent_run_id"
PARTITION = "dagster/partition"
PRIORITY = "dagster/priority"
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
ROOT_RUN = "dagster/root_run_id"
RUN_KEY = "dagster/run_key"
SCHEDULE = "dagster/schedule_name"
SENSOR = "dagster/sensor_name"
# "true" on a failed run that Dagster itself retries, because its process died.
WILL_RETRY = "dagster/will_retry"

# On a run that a person canceled, whatever became of it; its value is the id of the run itself, as
# runs that are started again inherit the tag.
CANCELED = "kpi/canceled"
# On a run that applies stored events.
EVENTS_TAG = "kpi/events"
# The highest id of the events that it was requested for.
LAST_EVENT = "kpi/last_event"
# On a run that polls the event feed.
FEED_TAG = "kpi/feed"
# On a run that somebody asked for on the dashboard; its value is the id of the request.
REQUEST = "kpi/request"
# On a run that retries what a failed one left undone; its value is the id of that run.
RETRY_OF = "kpi/retry_of"
# On a run that sends the daily summary; its value is the date.
SUMMARY_OF = "kpi/summary_of"
# On a run that first waits for the nightly sync that was due before its tick, which is the value.
# dagster.yaml limits how many run at once: they must not take all slots from that sync.
AFTER_SYNC_OF = "kpi/after_sync_of"

# The queue starts runs of a higher priority first, and those of the same in the order in which they
# were queued. A run without the tag has 0: what a person starts goes before the runs of a backfill,
# of which a long one leaves hundreds in the queue.
EVENTS_PRIORITY = "30"
# Somebody waits for it, and a sync covers the same days a little later.
REQUEST_PRIORITY = "25"
SYNC_PRIORITY = "20"
CHECKS_PRIORITY = "10"
RETRY_PRIORITY = "5"
BACKFILL_PRIORITY = "-10"

FINISHED = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
NOT_FINISHED = [status for status in DagsterRunStatus if status not in FINISHED]

# The schedule whose runs fetch today's sending plans once an hour only.
INTRADAY_REFRESH = "intraday_refresh"

# The step of the three assets, and the run config with which it makes no calls.
FILLING_STEP = "client_kpis"
WITHOUT_FETCH = {"ops": {FILLING_STEP: {"config": {"fetch": False}}}}

_GRID = {AssetKey(asset.value) for asset in KpiAsset}


def is_canceled(run: DagsterRun) -> bool:
    """Whether a person canceled this run: nothing but a person starts it again."""
    return run.status is DagsterRunStatus.CANCELED or run.tags.get(CANCELED) == run.run_id


def is_syncing(dagster_instance: DagsterInstance) -> bool:
    """Whether runs fetch facts, other than those of a backfill, which may take hours."""
    runs = dagster_instance.get_runs(filters=RunsFilter(statuses=NOT_FINISHED), limit=50)
    return any(BACKFILL not in run.tags and _fetches(run) for run in runs)


def _fetches(run: DagsterRun) -> bool:
    fills = not _GRID.isdisjoint(run.asset_selection or ())
    return fills and run.run_config != WITHOUT_FETCH
