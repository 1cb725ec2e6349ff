"""What Dagster knows of its schedules, sensors, daemons and runs; judged in `health/automation`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.scheduler.instigation import (
    InstigatorState,
    ScheduleInstigatorData,
    SensorInstigatorData,
)
from dagster._utils.schedules import schedule_execution_time_iterator

from kpi_pipeline.checks.automation import ActiveRun, AutomationState, DaemonState, TickState

# Where dagster.yaml sets no limit.
_LONGEST_RUN = timedelta(hours=2)
_RUNS_LOOKED_AT = 50
# A sensor that is due every few seconds may be held up by the others.
_LOOKS_MISSED = 20
_AT_LEAST = timedelta(minutes=10)


@dataclass(frozen=True)
class Automations:
    """The schedules and sensors that are expected to tick."""

    schedules: Sequence[dg.ScheduleDefinition]
    sensors: Sequence[dg.SensorDefinition]


def read_automation(instance: DagsterInstance, everything: Automations) -> AutomationState:
    """What of `everything` ticks, as Dagster's storage has it; the daemon may be dead."""
    # A schedule that was moved to another location has left a state behind there.
    states: dict[str, InstigatorState] = {}
    everyone = instance.all_instigator_state()
    ticks = _last_ticks(instance, everyone)
    for state in everyone:
        known = states.get(state.instigator_name)
        if known is None or ticks.get(state.selector_id, 0) > ticks.get(known.selector_id, 0):
            states[state.instigator_name] = state
    heartbeats = instance.get_daemon_heartbeats()
    return AutomationState(
        ticks=[
            *(_schedule(it, states.get(it.name), ticks) for it in everything.schedules),
            *(_sensor(it, states.get(it.name), ticks) for it in everything.sensors),
        ],
        daemons=[
            DaemonState(
                name.lower(), _instant(heartbeats[name].timestamp) if name in heartbeats else None
            )
            for name in instance.get_required_daemon_types()
        ],
        runs=list(_under_way(instance)),
    )


def _last_ticks(
    instance: DagsterInstance, states: Iterable[InstigatorState]
) -> Mapping[str, float]:
    """When each ticked last, by selector id; in one query where the storage can."""
    storage = instance.schedule_storage
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
    # One that was switched on just now has not missed what was due before.
    started = data.start_timestamp if isinstance(data, ScheduleInstigatorData) else None
    known = [at for at in (ticks.get(state.selector_id), started) if at is not None]
    due = None
    if known and state.is_running:
        # A tick bears the time for which it was due: the first one after it is the next.
        due = next(
            at.astimezone(UTC)
            for at in schedule_execution_time_iterator(
                max(known), schedule.cron_schedule, schedule.execution_timezone
            )
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
    due = _instant(max(known)) + max(_AT_LEAST, _LOOKS_MISSED * interval)
    return TickState(sensor.name, "sensor", state.is_running, due if state.is_running else None)


def _under_way(instance: DagsterInstance) -> Iterator[ActiveRun]:
    seconds = instance.run_monitoring_max_runtime_seconds
    limit = timedelta(seconds=seconds) if seconds else _LONGEST_RUN
    statuses = [DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
    records = instance.get_run_records(
        filters=RunsFilter(statuses=statuses), limit=_RUNS_LOOKED_AT, ascending=True
    )
    for record in records:
        if record.start_time is not None:
            yield ActiveRun(record.dagster_run.run_id, _instant(record.start_time), limit)


def _instant(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)
