"""The nightly sync as a whole: its tick, and its runs with their restarts and retries.

What depends on the sync (totals, rounds of checks, the daily summary) waits for the one that was
due before its own tick. After days of downtime, Dagster makes up the ticks of all schedules within
the same second, in no particular order.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from dagster import (
    AssetCheckExecutionContext,
    AssetExecutionContext,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    OpExecutionContext,
    RunRecord,
    RunsFilter,
)

from kpi_pipeline.checks.automation import NIGHTLY_SYNC_SCHEDULE
from kpi_pipeline.checks.freshness import NIGHTLY_SYNC
from kpi_pipeline.domain.formatting import moment
from kpi_pipeline.orchestration.dagster_private import (
    InstigatorState,
    ScheduleInstigatorData,
    TickStatus,
)
from kpi_pipeline.orchestration.partitions import GRID_ASSETS
from kpi_pipeline.orchestration.runs import (
    AFTER_SYNC_OF,
    FINISHED,
    PARENT_RUN,
    RETRY_OF,
    RUN_KEY,
    SCHEDULE,
    WILL_RETRY,
)
from kpi_pipeline.settings import Settings

if TYPE_CHECKING:
    from kpi_pipeline.app import AppContext

Context = AssetExecutionContext | AssetCheckExecutionContext | OpExecutionContext

# How long what depends on a sync waits for it: a sync of 1,000 clients takes half of that.
LONGEST_WAIT = timedelta(minutes=45)
# A round of checks is due every 15 minutes.
LONGEST_WAIT_OF_ROUND = timedelta(minutes=10)
# Made-up ticks follow one another within seconds. A sync that is queued for longer may need the
# very slot in which its dependents wait.
_MAY_START_LATE = timedelta(minutes=2)
_POLL_SECONDS = 2.0
_QUEUED = (DagsterRunStatus.NOT_STARTED, DagsterRunStatus.QUEUED)


class Progress(StrEnum):
    """How far a nightly sync is."""

    NOT_STARTED = "has not started"
    IN_PROGRESS = "is in progress"
    OVER = "is over"


@dataclass(frozen=True)
class NightlySync:
    """The last tick of the nightly sync, and the runs over the grid that it led to.

    `tick` is the time for which it was scheduled. `on` is False while the schedule is switched off,
    and `on_since` is when it was switched on.
    """

    tick: datetime | None
    status: TickStatus | None
    records: Sequence[RunRecord]
    on: bool
    on_since: datetime

    @property
    def runs(self) -> list[DagsterRun]:
        """Its runs over the grid, those that restart or retry others among them."""
        return [it.dagster_run for it in self.records]

    @property
    def ended_at(self) -> datetime | None:
        """When the last of its runs ended; None while one has not, or if there is none."""
        if not self.records or self.progress is not Progress.OVER:
            return None
        # A run that was canceled in the queue has an update alone.
        ends = (it.end_time or it.update_timestamp.timestamp() for it in self.records)
        return datetime.fromtimestamp(max(ends), UTC)

    @property
    def progress(self) -> Progress:
        """How far the runs of the tick are; a run that Dagster will restart has not ended."""
        if self.tick is None:
            return Progress.NOT_STARTED
        unfinished = [it for it in self.runs if it.status not in FINISHED]
        if self.status is TickStatus.STARTED:
            return Progress.IN_PROGRESS
        if not unfinished:
            return Progress.IN_PROGRESS if self._will_restart() else Progress.OVER
        is_queued = len(unfinished) == len(self.records) and all(
            it.status in _QUEUED for it in unfinished
        )
        return Progress.NOT_STARTED if is_queued else Progress.IN_PROGRESS

    def until(self, due: datetime) -> Progress:
        """How far the sync is that was due at `due`; over, too, if it will not come."""
        if not self.on or self.on_since > due:
            return Progress.OVER
        if self.tick is None or self.tick < due:
            return Progress.NOT_STARTED
        return self.progress

    def _will_restart(self) -> bool:
        restarted = {it.tags.get(PARENT_RUN) for it in self.runs}
        return any(
            it.status is DagsterRunStatus.FAILURE
            and it.tags.get(WILL_RETRY) == "true"
            and it.run_id not in restarted
            for it in self.runs
        )


def read_nightly_sync(dagster_instance: DagsterInstance) -> NightlySync | None:
    """The last nightly sync; None if Dagster's daemon has never seen its schedule."""
    states = [
        it
        for it in dagster_instance.all_instigator_state()
        if it.instigator_name == NIGHTLY_SYNC_SCHEDULE
    ]
    found = [_of(dagster_instance, state) for state in states]
    # One that was moved to another code location has left a state there.
    return max(found, key=lambda it: (it.on, it.tick or it.on_since), default=None)


def due_before(tick: datetime, settings: Settings) -> datetime:
    """When the last nightly sync was due that a dependent of this tick builds on."""
    local = tick.astimezone(settings.timezone)
    due = datetime.combine(local.date(), NIGHTLY_SYNC, settings.timezone)
    if due > local:
        due = datetime.combine(local.date() - timedelta(days=1), NIGHTLY_SYNC, settings.timezone)
    return due.astimezone(UTC)


def wait_for_nightly_sync(
    dagster_instance: DagsterInstance,
    settings: Settings,
    tick: datetime,
    *,
    began: float,
    longest: timedelta = LONGEST_WAIT,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
) -> str | None:
    """Wait until the nightly sync is over that was due before `tick`, or will not come.

    `began` is when the run began that waits. Returns a sentence if `longest` has passed since then
    and the sync is not over; else None.
    """
    due = due_before(tick, settings)
    while (progress := _progress(dagster_instance, due)) is not Progress.OVER:
        waited = timedelta(seconds=clock() - began)
        if waited >= (_MAY_START_LATE if progress is Progress.NOT_STARTED else longest):
            return (
                f"The nightly sync of {moment(due, settings.timezone)} {progress}: numbers may "
                "still change."
            )
        sleep(_POLL_SECONDS)
    return None


def after_due_sync(
    context: Context, app: "AppContext", longest: timedelta = LONGEST_WAIT
) -> tuple[datetime | None, str]:
    """Wait for the sync that this run is to come after, if it has the tag; the tick of that tag.

    Returns, too, the sentence for people if the wait was too long, or an empty one.
    """
    if AFTER_SYNC_OF not in context.run.tags:
        return None, ""
    tick = datetime.fromisoformat(context.run.tags[AFTER_SYNC_OF])
    record = context.instance.get_run_record_by_id(context.run.run_id)
    # The steps of a run wait once: what the first has waited counts for the others.
    began = record.start_time if record is not None else None
    note = wait_for_nightly_sync(
        context.instance, app.settings, tick, began=began or time.time(), longest=longest
    )
    if note is not None:
        context.log.warning(note)
    return tick, note or ""


def _progress(dagster_instance: DagsterInstance, due: datetime) -> Progress:
    night = read_nightly_sync(dagster_instance)
    return Progress.OVER if night is None else night.until(due)


def _of(dagster_instance: DagsterInstance, state: InstigatorState) -> NightlySync:
    data = state.instigator_data
    since = data.start_timestamp if isinstance(data, ScheduleInstigatorData) else None
    on_since = datetime.fromtimestamp(since or 0.0, UTC)
    ticks = dagster_instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
    if not ticks:
        return NightlySync(None, None, [], state.is_running, on_since)
    tick = datetime.fromtimestamp(ticks[0].timestamp, UTC)
    records = _records(dagster_instance, tick)
    return NightlySync(tick, ticks[0].status, records, state.is_running, on_since)


def _records(dagster_instance: DagsterInstance, tick: datetime) -> list[RunRecord]:
    """The runs over the grid of this tick: those that are started again inherit its run key."""
    scheduled = dagster_instance.get_run_records(
        RunsFilter(tags={SCHEDULE: NIGHTLY_SYNC_SCHEDULE}, created_after=tick)
    )
    own = [it for it in scheduled if _is_of_grid(it) and _tick_of(it.dagster_run) == tick]
    if not own:
        return []
    retries = dagster_instance.get_run_records(
        RunsFilter(tags={RETRY_OF: [it.dagster_run.run_id for it in own]})
    )
    return [*own, *_not_in(own, retries)]


def _not_in(known: Iterable[RunRecord], found: Iterable[RunRecord]) -> list[RunRecord]:
    ids = {it.dagster_run.run_id for it in known}
    return [it for it in found if it.dagster_run.run_id not in ids]


def _is_of_grid(record: RunRecord) -> bool:
    return not set(GRID_ASSETS).isdisjoint(record.dagster_run.asset_selection or ())


def _tick_of(run: DagsterRun) -> datetime | None:
    """The tick that requested the run: its run key begins with it."""
    try:
        return datetime.fromisoformat(run.tags.get(RUN_KEY, "").partition(" ")[0])
    except ValueError:
        return None
