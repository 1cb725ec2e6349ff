"""What Email Bison did not answer is asked for again, so that an outage leaves nothing behind.

The syncs do so by themselves. What is asked for once a day, the list of workspaces and the month's
totals, would else be told as missing until the next night.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Self

import dagster as dg
from dagster import (
    DagsterInstance,
    RunRequest,
    ScheduleEvaluationContext,
    SensorEvaluationContext,
    SkipReason,
)
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from kpi_pipeline.checks.outcome import ASKING_BISON, Check, has_unanswered
from kpi_pipeline.db.check_results import read_outcomes
from kpi_pipeline.db.sync_log import last_entry_at
from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration.asset_checks.specs import LIGHT_CHECKS, TOTALS_CHECK
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.assets.specs import REGISTRY
from kpi_pipeline.settings import Settings
from kpi_pipeline.sync.scope import KpiAsset

_GRID = {step.value for step in KpiAsset}
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
        return round_of(context.scheduled_execution_time.isoformat(), LIGHT_CHECKS)

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
        return round_of(context.scheduled_execution_time.isoformat(), [TOTALS_CHECK])

    @dg.sensor(
        name="check_after_sync",
        target=dg.AssetSelection.checks(*LIGHT_CHECKS),
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Has the checks done once syncs are over, one round for all that ended.",
    )
    def check_after_sync(context: SensorEvaluationContext, app: AppResource) -> dg.SensorResult:
        try:
            with app.opened() as opened, opened.engine.connect() as connection:
                synced_at, now = last_entry_at(connection), opened.now()
        except KpiError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        return after_sync(context.instance, context.cursor, synced_at, now)

    return [data_checks, daily_totals_check], check_after_sync


def after_sync(
    instance: DagsterInstance, cursor: str | None, synced_at: datetime | None, now: datetime
) -> dg.SensorResult:
    """One look of the sensor, given when a client's sync ended last."""
    noted = _Noted.read(cursor)
    if synced_at is None or (noted.checked is not None and synced_at <= noted.checked):
        return dg.SensorResult(skip_reason="No sync has ended since the last round.", cursor=cursor)
    if noted.asked_at is not None and now - noted.asked_at < _AT_MOST_EVERY:
        return dg.SensorResult(skip_reason="A round was done just now.", cursor=cursor)
    waits_since = noted.waits_since or now
    if now - waits_since < _LONGEST_WAIT and _is_syncing(instance):
        waiting = replace(noted, waits_since=waits_since)
        return dg.SensorResult(skip_reason="Syncs are under way.", cursor=waiting.written())
    return dg.SensorResult(
        run_requests=[round_of(f"after {synced_at.isoformat()}", LIGHT_CHECKS)],
        cursor=_Noted(checked=synced_at, asked_at=now).written(),
    )


@dataclass(frozen=True)
class _Noted:
    """What the sensor keeps in mind: the end of a sync for which a round was asked for last, when
    that was, and since when another one has waited for the syncs under way.
    """

    checked: datetime | None = None
    asked_at: datetime | None = None
    waits_since: datetime | None = None

    @classmethod
    def read(cls, cursor: str | None) -> Self:
        kept: dict[str, str] = json.loads(cursor) if cursor else {}
        return cls(**{name: datetime.fromisoformat(at) for name, at in kept.items()})

    def written(self) -> str:
        return json.dumps({name: at.isoformat() for name, at in vars(self).items() if at})


def round_of(key: str, checks: Sequence[dg.AssetCheckKey]) -> dg.RunRequest:
    """One run that does these checks and fills nothing; Dagster starts one of a `key` once."""
    return dg.RunRequest(run_key=f"checks {key}", asset_selection=[], asset_check_keys=list(checks))


def _is_syncing(instance: DagsterInstance) -> bool:
    runs = instance.get_runs(filters=dg.RunsFilter(statuses=NOT_FINISHED_STATUSES), limit=50)
    return any(key.to_user_string() in _GRID for run in runs for key in run.asset_selection or ())


def build_ask_bison_again(settings: Settings) -> dg.ScheduleDefinition:
    """The schedule `ask_bison_again`."""

    @dg.schedule(
        name="ask_bison_again",
        cron_schedule="40 * * * *",
        execution_timezone=settings.timezone.key,
        target=dg.AssetSelection.assets(REGISTRY) | dg.AssetSelection.checks(TOTALS_CHECK),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Every hour: what Email Bison did not answer when it was asked for its list of "
        "workspaces, or for the month's totals.",
    )
    def ask_bison_again(
        context: ScheduleEvaluationContext, app: AppResource
    ) -> list[RunRequest] | SkipReason:
        try:
            with app.opened() as opened, opened.engine.connect() as connection:
                outcomes = read_outcomes(connection, ASKING_BISON)
        except KpiError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        unanswered = [Check(it.name) for it in outcomes if has_unanswered(it.offenders)]
        tick = context.scheduled_execution_time.isoformat()
        return list(_requests(unanswered, tick)) or SkipReason("Email Bison has answered.")

    return ask_bison_again


def _requests(unanswered: list[Check], tick: str) -> Iterator[RunRequest]:
    if Check.REGISTRY_MATCHES_BISON in unanswered:
        yield RunRequest(run_key=f"again {tick} registry", asset_selection=[REGISTRY])
    if Check.TOTALS_MATCH_BISON in unanswered:
        yield round_of(f"again {tick}", [TOTALS_CHECK])
