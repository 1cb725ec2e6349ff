"""The runs that only check: every 15 minutes, after syncs, and again where Bison did not answer."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Self

import dagster as dg
from dagster import DagsterInstance, RunRequest, ScheduleEvaluationContext, SkipReason

from kpi_pipeline.checks.outcome import ASKING_BISON, Check, has_unanswered
from kpi_pipeline.db.check_results import read_outcomes
from kpi_pipeline.db.sync_log import last_entry_at
from kpi_pipeline.orchestration.asset_checks.specs import LIGHT_CHECKS, TOTALS_CHECK
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.assets.specs import REGISTRY
from kpi_pipeline.orchestration.dagster_private import cron_times
from kpi_pipeline.orchestration.partitions import GRID_ASSETS
from kpi_pipeline.orchestration.runs import (
    AFTER_SYNC_OF,
    CHECKS_PRIORITY,
    NOT_FINISHED,
    PRIORITY,
    SYNC_PRIORITY,
)
from kpi_pipeline.settings import Settings

# The schedule of the rounds of checks.
ROUNDS = "data_checks"
# While one sync follows another, checks wait for this long at most,
_MAX_WAIT = timedelta(minutes=10)
# and are done no more often than this.
_MIN_INTERVAL = timedelta(minutes=2)
_EVERY_QUARTER = "*/15 * * * *"
_EVERY_NIGHT = "10 1 * * *"


def check_run(
    key: str, checks: Sequence[dg.AssetCheckKey], tick: datetime | None = None
) -> RunRequest:
    """A run that does these checks and fills nothing; Dagster starts one of each `key` once.

    With `tick`, it first waits for the nightly sync that was due before that.
    """
    after = {} if tick is None else {AFTER_SYNC_OF: tick.isoformat()}
    return RunRequest(
        run_key=f"checks {key}",
        asset_selection=[],
        asset_check_keys=list(checks),
        tags={PRIORITY: CHECKS_PRIORITY, **after},
    )


def build_check_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """The schedules `data_checks` and `daily_totals_check`."""
    zone = settings.timezone.key

    @dg.schedule(
        name=ROUNDS,
        cron_schedule=_EVERY_QUARTER,
        execution_timezone=zone,
        target=dg.AssetSelection.checks(*LIGHT_CHECKS),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Every 15 minutes: the checks that read the database alone, in one light run.",
    )
    def data_checks(context: ScheduleEvaluationContext) -> RunRequest | SkipReason:
        return _after_sync_of(context, _EVERY_QUARTER, zone, LIGHT_CHECKS)

    @dg.schedule(
        name="daily_totals_check",
        cron_schedule=_EVERY_NIGHT,
        execution_timezone=zone,
        target=dg.AssetSelection.checks(TOTALS_CHECK),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Every night, after the sync: compares the month's sums with Email Bison's own "
        "totals, one call per client.",
    )
    def daily_totals_check(context: ScheduleEvaluationContext) -> RunRequest | SkipReason:
        return _after_sync_of(context, _EVERY_NIGHT, zone, [TOTALS_CHECK])

    return [data_checks, daily_totals_check]


def _after_sync_of(
    context: ScheduleEvaluationContext, cron: str, zone: str, checks: Sequence[dg.AssetCheckKey]
) -> RunRequest | SkipReason:
    """The run of a tick; none for one that is made up so late that the next was due meanwhile."""
    tick = context.scheduled_execution_time
    times = cron_times(cron, zone, tick.timestamp())
    following = next(it for it in times if it.timestamp() > tick.timestamp())
    if following <= datetime.now(UTC):
        return SkipReason(f"Made up late: the tick of {following:%Y-%m-%d %H:%M %Z} checks, too.")
    return check_run(tick.isoformat(), checks, tick)


def build_check_sensor() -> dg.SensorDefinition:
    """The sensor `check_after_sync`."""

    @dg.sensor(
        name="check_after_sync",
        target=dg.AssetSelection.checks(*LIGHT_CHECKS),
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Requests a run of checks once syncs are over, one for all that ended.",
    )
    def check_after_sync(context: dg.SensorEvaluationContext, app: AppResource) -> dg.SensorResult:
        with app.opened() as opened, opened.engine.connect() as connection:
            synced_at, now = last_entry_at(connection), opened.now()
        return after_sync(context.instance, context.cursor, synced_at, now)

    return check_after_sync


def after_sync(
    dagster_instance: DagsterInstance,
    cursor: str | None,
    synced_at: datetime | None,
    now: datetime,
) -> dg.SensorResult:
    """One evaluation of the sensor; `synced_at` is when the last sync of a client ended."""
    last = _Cursor.read(cursor)
    if synced_at is None or (last.checked is not None and synced_at <= last.checked):
        return dg.SensorResult(
            skip_reason="No sync has ended since the last checks.", cursor=cursor
        )
    if last.requested_at is not None and now - last.requested_at < _MIN_INTERVAL:
        return dg.SensorResult(skip_reason="Checks were requested a moment ago.", cursor=cursor)
    waiting_since = last.waiting_since or now
    if now - waiting_since < _MAX_WAIT and _is_syncing(dagster_instance):
        waiting = replace(last, waiting_since=waiting_since)
        return dg.SensorResult(skip_reason="Syncs are in progress.", cursor=waiting.written())
    return dg.SensorResult(
        # After downtime, a sync of long ago is not the one that is due.
        run_requests=[check_run(f"after {synced_at.isoformat()}", LIGHT_CHECKS, now)],
        cursor=_Cursor(checked=synced_at, requested_at=now).written(),
    )


@dataclass(frozen=True)
class _Cursor:
    """The sensor's cursor.

    `checked` is the end of the last sync that checks were requested for, `requested_at` when they
    were, and `waiting_since` when the next ones began to wait for syncs in progress.
    """

    checked: datetime | None = None
    requested_at: datetime | None = None
    waiting_since: datetime | None = None

    @classmethod
    def read(cls, cursor: str | None) -> Self:
        kept: dict[str, str] = json.loads(cursor) if cursor else {}
        known = {name: datetime.fromisoformat(at) for name, at in kept.items()}
        return cls(known.get("checked"), known.get("requested_at"), known.get("waiting_since"))

    def written(self) -> str:
        return json.dumps({name: at.isoformat() for name, at in vars(self).items() if at})


def _is_syncing(dagster_instance: DagsterInstance) -> bool:
    runs = dagster_instance.get_runs(filters=dg.RunsFilter(statuses=NOT_FINISHED), limit=50)
    return any(key in GRID_ASSETS for run in runs for key in run.asset_selection or ())


def build_retry_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """The schedule `retry_unanswered_checks`.

    Syncs retry on their own. The list of workspaces and the month's totals are read once a day, and
    an outage of Email Bison at that moment would fail their checks until the next night.
    """

    @dg.schedule(
        name="retry_unanswered_checks",
        cron_schedule="40 * * * *",
        execution_timezone=settings.timezone.key,
        target=dg.AssetSelection.assets(REGISTRY) | dg.AssetSelection.checks(TOTALS_CHECK),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Every hour: reads again what Email Bison did not answer when its list of "
        "workspaces, or the month's totals, were read.",
    )
    def retry_unanswered_checks(
        context: ScheduleEvaluationContext, app: AppResource
    ) -> list[RunRequest] | SkipReason:
        with app.opened() as opened, opened.engine.connect() as connection:
            outcomes = read_outcomes(connection, ASKING_BISON)
        unanswered = [Check(it.name) for it in outcomes if has_unanswered(it.offenders)]
        tick = context.scheduled_execution_time.isoformat()
        return list(_retries(unanswered, tick)) or SkipReason("Email Bison has answered.")

    return retry_unanswered_checks


def _retries(unanswered: Sequence[Check], tick: str) -> Iterator[RunRequest]:
    if Check.REGISTRY_MATCHES_BISON in unanswered:
        yield RunRequest(
            run_key=f"retry {tick} registry",
            asset_selection=[REGISTRY],
            tags={PRIORITY: SYNC_PRIORITY},
        )
    if Check.TOTALS_MATCH_BISON in unanswered:
        yield check_run(f"retry {tick}", [TOTALS_CHECK])
