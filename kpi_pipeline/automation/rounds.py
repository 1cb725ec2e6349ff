"""When the checks are done: every 15 minutes, after each sync, and once a day those that call.

A round is one run that materializes nothing. What a run of assets fills does the checks of these
assets, too; the scheduled ones leave that to the round after them, which is one for them all.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster import DagsterInstance, SensorEvaluationContext
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from kpi_pipeline.assets.resources import DeploymentResource
from kpi_pipeline.checks.specs import LIGHT_CHECKS, TOTALS_CHECK
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import Settings
from kpi_pipeline.sync.rectangle import Step
from kpi_pipeline.warehouse.sync_log import last_entry_at

_GRID = {step.value for step in Step}
# While syncs follow one another, a round is not put off for longer than that,
_LONGEST_WAIT = timedelta(minutes=10)
# and not done more often.
_AT_MOST_EVERY = timedelta(minutes=2)


def build_rounds(
    settings: Settings,
) -> tuple[list[dg.ScheduleDefinition], dg.SensorDefinition]:
    """The schedules `data_checks` and `daily_totals_check`, and the sensor `check_after_sync`."""
    zone = settings.timezone.key

    @dg.schedule(
        name="data_checks",
        cron_schedule="*/15 * * * *",
        execution_timezone=zone,
        target=dg.AssetSelection.checks(*LIGHT_CHECKS),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Every 15 minutes: the checks that ask the database alone, in one light run.",
    )
    def data_checks(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        return _round(context.scheduled_execution_time.isoformat(), LIGHT_CHECKS)

    @dg.schedule(
        name="daily_totals_check",
        cron_schedule="10 1 * * *",
        execution_timezone=zone,
        target=dg.AssetSelection.checks(TOTALS_CHECK),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Every night, after the sync: compares the month's sums with Email Bison's own "
        "totals, one call a client.",
    )
    def daily_totals_check(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        return _round(context.scheduled_execution_time.isoformat(), [TOTALS_CHECK])

    @dg.sensor(
        name="check_after_sync",
        target=dg.AssetSelection.checks(*LIGHT_CHECKS),
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Has the checks done once syncs are over, one round for all that ended.",
    )
    def check_after_sync(
        context: SensorEvaluationContext, deployment: DeploymentResource
    ) -> dg.SensorResult:
        try:
            with deployment.opened() as opened, opened.engine.connect() as connection:
                synced_at, now = last_entry_at(connection), opened.now()
        except KpiError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        return after_sync(context.instance, context.cursor, synced_at, now)

    return [data_checks, daily_totals_check], check_after_sync


def after_sync(
    instance: DagsterInstance, cursor: str | None, synced_at: datetime | None, now: datetime
) -> dg.SensorResult:
    """One look of the sensor, given when a client's sync ended last.

    The cursor holds the end for which a round was asked for last, and when that was.
    """
    checked, asked_at = _read(cursor)
    if synced_at is None or (checked is not None and synced_at <= checked):
        return dg.SensorResult(skip_reason="No sync has ended since the last round.", cursor=cursor)
    if asked_at is not None and now - asked_at < _AT_MOST_EVERY:
        return dg.SensorResult(skip_reason="A round was done just now.", cursor=cursor)
    waited = now - (asked_at or datetime.min.replace(tzinfo=UTC))
    if waited < _LONGEST_WAIT and _is_syncing(instance):
        return dg.SensorResult(skip_reason="Syncs are under way.", cursor=cursor)
    request = _round(f"after {synced_at.isoformat()}", LIGHT_CHECKS)
    noted = json.dumps({"checked": synced_at.isoformat(), "asked_at": now.isoformat()})
    return dg.SensorResult(run_requests=[request], cursor=noted)


def _round(key: str, checks: Sequence[dg.AssetCheckKey]) -> dg.RunRequest:
    return dg.RunRequest(run_key=f"checks {key}", asset_selection=[], asset_check_keys=list(checks))


def _read(cursor: str | None) -> tuple[datetime | None, datetime | None]:
    if cursor is None:
        return None, None
    kept = json.loads(cursor)
    return datetime.fromisoformat(kept["checked"]), datetime.fromisoformat(kept["asked_at"])


def _is_syncing(instance: DagsterInstance) -> bool:
    runs = instance.get_runs(filters=dg.RunsFilter(statuses=NOT_FINISHED_STATUSES), limit=50)
    return any(key.to_user_string() in _GRID for run in runs for key in run.asset_selection or ())
