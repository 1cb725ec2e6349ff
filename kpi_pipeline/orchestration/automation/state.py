"""The state of schedules, sensors, daemons and runs in Dagster, for `checks/automation.py`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Self

import dagster as dg
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

from kpi_pipeline.checks.automation import (
    MAX_FAILED_TICKS,
    ActiveRun,
    AutomationState,
    DaemonState,
    TickState,
)
from kpi_pipeline.orchestration.dagster_private import (
    InstigatorState,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickStatus,
    cron_times,
)
from kpi_pipeline.orchestration.runtime.claim import read_claim

# Where dagster.yaml sets no limit.
_MAX_RUN_TIME = timedelta(hours=2)
_MAX_RUNS = 50
_GOOD = [TickStatus.SUCCESS, TickStatus.SKIPPED]
# A sensor that is due every few seconds may have to wait for the others.
_MISSED_TICKS = 20
_MIN_DELAY = timedelta(minutes=10)
# Three ticks of a schedule that ticks once a day would be three days.
_RARE = timedelta(hours=6)


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
        if known is None or _of(state, ticks).at > _of(known, ticks).at:
            states[state.instigator_name] = state
    heartbeats = dagster_instance.get_daemon_heartbeats()
    claim = read_claim(dagster_instance)
    return AutomationState(
        ticks=[
            *(_schedule(it, *_found(it.name, states, ticks)) for it in expected.schedules),
            *(_sensor(it, *_found(it.name, states, ticks)) for it in expected.sensors),
        ],
        daemons=[
            DaemonState(
                name.lower(), _instant(heartbeats[name].timestamp) if name in heartbeats else None
            )
            for name in dagster_instance.get_required_daemon_types()
        ],
        runs=list(_active_runs(dagster_instance)),
        daemon_since=None if claim is None else _instant(claim.since),
    )


def _found(
    name: str, states: Mapping[str, InstigatorState], ticks: Mapping[str, "_LastTicks"]
) -> tuple[InstigatorState | None, "_LastTicks"]:
    """The state and the last ticks of the schedule or sensor of this name."""
    state = states.get(name)
    return state, _of(state, ticks)


def _of(state: InstigatorState | None, ticks: Mapping[str, "_LastTicks"]) -> "_LastTicks":
    return _NEVER if state is None else ticks.get(state.selector_id, _NEVER)


def _last_ticks(
    dagster_instance: DagsterInstance, states: Iterable[InstigatorState]
) -> Mapping[str, "_LastTicks"]:
    """The last ticks of each, by selector id: one query, and one for each that only fails."""
    storage = dagster_instance.schedule_storage
    origins = {state.selector_id: state.instigator_origin_id for state in states}
    if storage is None or not origins:
        return {}
    # The last one may be in progress.
    found = storage.get_batch_ticks([*origins], limit=MAX_FAILED_TICKS + 1)
    last = {
        selector: _LastTicks.of([(it.timestamp, it.status) for it in ticks])
        for selector, ticks in found.items()
        if ticks
    }
    for selector in [it for it, ticks in last.items() if ticks.failed == MAX_FAILED_TICKS]:
        # What failed before these is not read: it fails since its last good tick.
        good = storage.get_ticks(origins[selector], selector, limit=1, statuses=_GOOD)
        if good:
            since = _instant(good[0].timestamp)
            last[selector] = replace(last[selector], failing_since=since)
    return last


@dataclass(frozen=True)
class _LastTicks:
    """When the last tick was, how many of the last ones failed in a row, and since when."""

    at: float
    failed: int = 0
    failing_since: datetime | None = None

    @classmethod
    def of(cls, ticks: Iterable[tuple[float, TickStatus]]) -> Self:
        latest = sorted(ticks, key=lambda it: -it[0])
        ended = [it for it in latest if it[1] is not TickStatus.STARTED][:MAX_FAILED_TICKS]
        failed = list(takewhile(lambda it: it[1] is TickStatus.FAILURE, ended))
        since = _instant(failed[-1][0]) if failed else None
        return cls(latest[0][0], len(failed), since)


_NEVER = _LastTicks(0.0)


def _schedule(
    schedule: dg.ScheduleDefinition, state: InstigatorState | None, last: _LastTicks
) -> TickState:
    if state is None:
        return TickState(schedule.name, "schedule", None, None)
    data = state.instigator_data
    # One that was just turned on has not missed what was due before.
    started = data.start_timestamp if isinstance(data, ScheduleInstigatorData) else None
    known = [at for at in (last.at, started) if at]
    if not known:
        return TickState(schedule.name, "schedule", None, None)
    if not state.is_running:
        return TickState(schedule.name, "schedule", False, None)
    # A tick carries the time at which it was due: the first one after it is the next.
    times = cron_times(schedule.cron_schedule, schedule.execution_timezone, max(known))
    due, following = islice((it for it in times if it.timestamp() > max(known)), 2)
    may_fail = 0 if following - due > _RARE else MAX_FAILED_TICKS - 1
    return TickState(
        schedule.name,
        "schedule",
        True,
        due.astimezone(UTC),
        last.failed,
        last.failing_since,
        may_fail,
    )


def _sensor(
    sensor: dg.SensorDefinition, state: InstigatorState | None, last: _LastTicks
) -> TickState:
    if state is None:
        return TickState(sensor.name, "sensor", None, None)
    data = state.instigator_data
    started = data.last_sensor_start_timestamp if isinstance(data, SensorInstigatorData) else None
    known = [at for at in (last.at, started) if at]
    if not known:
        return TickState(sensor.name, "sensor", None, None)
    if not state.is_running:
        return TickState(sensor.name, "sensor", False, None)
    interval = timedelta(seconds=sensor.minimum_interval_seconds or 30)
    due = _instant(max(known)) + max(_MIN_DELAY, _MISSED_TICKS * interval)
    return TickState(sensor.name, "sensor", True, due, last.failed, last.failing_since)


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
