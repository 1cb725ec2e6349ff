"""The state of schedules, sensors, daemons and runs in Dagster, for `checks/automation.py`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

from kpi_pipeline.checks.automation import ActiveRun, AutomationState, DaemonState, TickState
from kpi_pipeline.orchestration.dagster_private import (
    InstigatorState,
    ScheduleInstigatorData,
    SensorInstigatorData,
    cron_times,
)

# Where dagster.yaml sets no limit.
_MAX_RUN_TIME = timedelta(hours=2)
_MAX_RUNS = 50
# A sensor that is due every few seconds may have to wait for the others.
_MISSED_TICKS = 20
_MIN_DELAY = timedelta(minutes=10)


@dataclass(frozen=True)
class SchedulesAndSensors:
    """The schedules and sensors that are expected to tick."""

    schedules: Sequence[dg.ScheduleDefinition]
    sensors: Sequence[dg.SensorDefinition]


def read_automation(
    dagster_instance: DagsterInstance, expected: SchedulesAndSensors
) -> AutomationState:
    """The state of `expected`, of the daemons and of active runs, from Dagster's storage.

    No daemon needs to run.
    """
    # A schedule that was moved to another code location has left a state there.
    states: dict[str, InstigatorState] = {}
    everyone = dagster_instance.all_instigator_state()
    ticks = _last_ticks(dagster_instance, everyone)
    for state in everyone:
        known = states.get(state.instigator_name)
        if known is None or ticks.get(state.selector_id, 0) > ticks.get(known.selector_id, 0):
            states[state.instigator_name] = state
    heartbeats = dagster_instance.get_daemon_heartbeats()
    return AutomationState(
        ticks=[
            *(_schedule(it, states.get(it.name), ticks) for it in expected.schedules),
            *(_sensor(it, states.get(it.name), ticks) for it in expected.sensors),
        ],
        daemons=[
            DaemonState(
                name.lower(), _instant(heartbeats[name].timestamp) if name in heartbeats else None
            )
            for name in dagster_instance.get_required_daemon_types()
        ],
        runs=list(_active_runs(dagster_instance)),
    )


def _last_ticks(
    dagster_instance: DagsterInstance, states: Iterable[InstigatorState]
) -> Mapping[str, float]:
    """The timestamp of each one's last tick, by selector id; one query where the storage can."""
    storage = dagster_instance.schedule_storage
    ids = [state.selector_id for state in states]
    if storage is None or not ids:
        return {}
    found = storage.get_batch_ticks(ids, limit=1)
    return {selector: ticks[0].timestamp for selector, ticks in found.items() if ticks}


def _schedule(
    schedule: dg.ScheduleDefinition, state: InstigatorState | None, ticks: Mapping[str, float]
) -> TickState:
    if state is None:
        return TickState(schedule.name, "schedule", None, None)
    data = state.instigator_data
    # One that was just turned on has not missed what was due before.
    started = data.start_timestamp if isinstance(data, ScheduleInstigatorData) else None
    known = [at for at in (ticks.get(state.selector_id), started) if at is not None]
    due = None
    if known and state.is_running:
        # A tick carries the time at which it was due: the first one after it is the next.
        due = next(
            at.astimezone(UTC)
            for at in cron_times(schedule.cron_schedule, schedule.execution_timezone, max(known))
            if at.timestamp() > max(known)
        )
    return TickState(schedule.name, "schedule", state.is_running if known else None, due)


def _sensor(
    sensor: dg.SensorDefinition, state: InstigatorState | None, ticks: Mapping[str, float]
) -> TickState:
    if state is None:
        return TickState(sensor.name, "sensor", None, None)
    data = state.instigator_data
    started = data.last_sensor_start_timestamp if isinstance(data, SensorInstigatorData) else None
    known = [at for at in (ticks.get(state.selector_id), started) if at is not None]
    if not known:
        return TickState(sensor.name, "sensor", None, None)
    interval = timedelta(seconds=sensor.minimum_interval_seconds or 30)
    due = _instant(max(known)) + max(_MIN_DELAY, _MISSED_TICKS * interval)
    return TickState(sensor.name, "sensor", state.is_running, due if state.is_running else None)


def _active_runs(dagster_instance: DagsterInstance) -> Iterator[ActiveRun]:
    seconds = dagster_instance.run_monitoring_max_runtime_seconds
    limit = timedelta(seconds=seconds) if seconds else _MAX_RUN_TIME
    statuses = [DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
    records = dagster_instance.get_run_records(
        filters=RunsFilter(statuses=statuses), limit=_MAX_RUNS, ascending=True
    )
    for record in records:
        if record.start_time is not None:
            yield ActiveRun(record.dagster_run.run_id, _instant(record.start_time), limit)


def _instant(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)
