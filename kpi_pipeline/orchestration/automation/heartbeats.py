"""The sensor that pings the external dead-man's switches: one meaning for each.

KPI_HEARTBEAT_URL: the nightly sync of all clients went well. It starts with the schedule's tick,
succeeds once the numbers of all its clients are in, and fails once if its runs, restarts and
retries are over and some are not. Where a person syncs those clients later, it succeeds after all.

KPI_HEARTBEAT_URL_CHECKS: a scheduled round of checks is done, and alerts go out.

A ping that the switch did not accept is sent again at the next evaluation.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
from dagster import DagsterInstance, DagsterRunStatus, RunRecord, RunsFilter

from kpi_pipeline.checks.alerting import alerting_problems
from kpi_pipeline.db.registry.clients import active_clients
from kpi_pipeline.db.sync_log import synced_over
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.automation.check_runs import ROUNDS
from kpi_pipeline.orchestration.dagster_private import TickStatus
from kpi_pipeline.orchestration.nightly_sync import NightlySync, Progress, read_nightly_sync
from kpi_pipeline.orchestration.partitions import WORKSPACE, block_from_tags
from kpi_pipeline.orchestration.runs import FINISHED, SCHEDULE, WILL_RETRY
from kpi_pipeline.settings import Settings

if TYPE_CHECKING:
    from kpi_pipeline.alerts.heartbeat import Beat
    from kpi_pipeline.app import AppContext

# `retry_failed_clients` requests its retries within this time.
_RETRY_TIME = timedelta(minutes=2)
# After a restart, the first round of checks can end before the first evaluation of the alerts.
_ALERTS_MAY_BE_LATE = timedelta(minutes=2)
# A round that ended earlier says nothing of now.
_LATEST_ROUND = timedelta(minutes=15)
_ROUNDS_READ = 3


@dataclass(frozen=True)
class Sent:
    """The last ping: its subject (the tick of a night, or a run of checks), and its beat."""

    of: str
    beat: str


def build_heartbeat_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensor `heartbeats`; none where neither address is set."""
    if settings.heartbeat_url is None and settings.heartbeat_url_checks is None:
        return []

    @dg.sensor(
        name="heartbeats",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Pings KPI_HEARTBEAT_URL for the nightly sync of all clients, and "
        "KPI_HEARTBEAT_URL_CHECKS for each round of checks while alerts go out.",
    )
    def heartbeats(context: dg.SensorEvaluationContext, app: AppResource) -> dg.SensorResult:
        with app.opened() as opened:
            cursor = ping_switches(context.instance, opened, context.cursor)
        return dg.SensorResult(skip_reason="Heartbeats start no runs.", cursor=cursor)

    return [heartbeats]


def ping_switches(dagster_instance: DagsterInstance, app: "AppContext", cursor: str | None) -> str:
    """One evaluation of the sensor: send the pings that are due; the new cursor."""
    from kpi_pipeline.alerts.heartbeat import ping

    sent = _read_cursor(cursor)
    settings = app.settings
    if settings.heartbeat_url is not None and (night := read_nightly_sync(dagster_instance)):
        due = _beat_of_night(dagster_instance, app, night, sent.get("night"))
        if due is not None and ping(settings.heartbeat_url, due[1], _id_of(due[0])):
            sent["night"] = Sent(due[0], due[1].name)
    if settings.heartbeat_url_checks is not None and (last := _last_round(dagster_instance)):
        due = _beat_of_round(app, last, sent.get("round"))
        name = "KPI_HEARTBEAT_URL_CHECKS"
        if due is not None and ping(settings.heartbeat_url_checks, due[1], due[0], setting=name):
            sent["round"] = Sent(due[0], due[1].name)
    return json.dumps({name: asdict(it) for name, it in sent.items()})


def _beat_of_night(
    dagster_instance: DagsterInstance, app: "AppContext", night: NightlySync, last: Sent | None
) -> "tuple[str, Beat] | None":
    """What is to be said of the night, and was not: the tick, and the beat."""
    from kpi_pipeline.alerts.heartbeat import Beat

    if night.tick is None:
        return None
    tick = night.tick.isoformat()
    said = last.beat if last is not None and last.of == tick else None
    if said == Beat.SUCCESS.name:
        return None
    if night.status is TickStatus.SUCCESS and not _clients_left(dagster_instance, app, night):
        return tick, Beat.SUCCESS
    if said == Beat.FAIL.name:
        return None
    if night.status is TickStatus.FAILURE or _is_over(night, app.now()):
        return tick, Beat.FAIL
    return (tick, Beat.START) if said is None else None


def _clients_left(
    dagster_instance: DagsterInstance, app: "AppContext", night: NightlySync
) -> set[str]:
    """The active clients of the night whose dates no sync has fetched since its tick."""
    order = dagster_instance.get_dynamic_partitions(WORKSPACE)
    found = (block_from_tags(run.tags, order) for run in night.runs)
    blocks = [it for it in found if it is not None]
    if night.tick is None or not blocks:
        return set()
    first, last = min(it.dates[0] for it in blocks), max(it.dates[-1] for it in blocks)
    with app.engine.connect() as connection:
        active = {it.workspace for it in active_clients(connection)}
        done = synced_over(connection, night.tick, first, last)
    return {it for block in blocks for it in block.workspaces if it in active} - done


def _is_over(night: NightlySync, now: datetime) -> bool:
    ended_at = night.ended_at
    if ended_at is None:
        return night.progress is Progress.OVER and not night.records
    return now - ended_at > _RETRY_TIME


def _last_round(dagster_instance: DagsterInstance) -> RunRecord | None:
    """The last scheduled round of checks that ended."""
    records = dagster_instance.get_run_records(RunsFilter(tags={SCHEDULE: ROUNDS}), _ROUNDS_READ)
    return next((it for it in records if _has_ended(it)), None)


def _has_ended(record: RunRecord) -> bool:
    run = record.dagster_run
    return run.status in FINISHED and run.tags.get(WILL_RETRY) != "true"


def _beat_of_round(
    app: "AppContext", record: RunRecord, last: Sent | None
) -> "tuple[str, Beat] | None":
    """What is to be said of the round, and was not: the id of its run, and the beat."""
    from kpi_pipeline.alerts.heartbeat import Beat

    run, now = record.dagster_run, app.now()
    ended_at = datetime.fromtimestamp(record.end_time or 0.0, UTC)
    said = last.beat if last is not None and last.of == run.run_id else None
    if said == Beat.SUCCESS.name or now - ended_at > _LATEST_ROUND:
        return None
    if run.status is DagsterRunStatus.SUCCESS:
        with app.engine.connect() as connection:
            if not alerting_problems(connection, now):
                return run.run_id, Beat.SUCCESS
        if now - ended_at <= _ALERTS_MAY_BE_LATE:
            return None
    # Nobody says that a canceled round went well, or that something is wrong.
    is_bad = run.status is not DagsterRunStatus.CANCELED
    return (run.run_id, Beat.FAIL) if is_bad and said is None else None


def _id_of(tick: str) -> str:
    """The UUID of a night, which healthchecks.io asks for."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"kpi_pipeline/nightly_sync/{tick}"))


def _read_cursor(cursor: str | None) -> dict[str, Sent]:
    kept: Mapping[str, dict[str, str]] = json.loads(cursor) if cursor else {}
    return {name: Sent(**it) for name, it in kept.items()}
