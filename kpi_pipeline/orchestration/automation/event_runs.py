"""Which runs the events ask for that are stored and not applied: one for each block."""

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime

import dagster as dg
from dagster import DagsterInstance, RunRequest
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import PRIORITY_TAG

from kpi_pipeline.db.overlay import Pending
from kpi_pipeline.domain.calendar import consecutive_ranges, days_between
from kpi_pipeline.orchestration.partitions import block_tags, contiguous_groups, range_of
from kpi_pipeline.sync.scope import KpiAsset

EVENTS_TAG = "kpi/events"
# Nothing is fetched: the facts are there, and a fetch would not bring what came in since.
EVENT_ASSETS = [dg.AssetKey(KpiAsset.PROJECTIONS.value), dg.AssetKey(KpiAsset.METRICS.value)]

_WAITING = "waiting"
# What is not requested at one look is at the next ones.
_RUNS_A_LOOK = 25
# A run that was cancelled, or that failed through no fault of an event, leaves its events as they
# were: they are asked for again after this time, and not at each look.
_AGAIN_AFTER_SECONDS = 300


def covered_now(instance: DagsterInstance, order: Sequence[str]) -> set[str]:
    """The clients that a run of this kind covers which is not over."""
    filters = dg.RunsFilter(statuses=NOT_FINISHED_STATUSES, tags={EVENTS_TAG: _WAITING})
    ranges = [range_of(run.tags, order) for run in instance.get_runs(filters=filters)]
    return {workspace for found in ranges if found is not None for workspace in found.workspaces}


def event_runs(
    pending: Collection[Pending],
    dates: Mapping[str, Sequence[date]],
    order: Sequence[str],
    *,
    most_workspaces: int,
    now: datetime,
) -> list[RunRequest]:
    """A run for each stretch of dates and group of contiguous_groups, given each client's dates.

    Each has a key of the events that it is for, so no look asks for the same twice.
    """
    states = {it.workspace: it for it in pending}
    blocks: dict[tuple[date, date], list[str]] = {}
    for workspace in states:
        for stretch in consecutive_ranges(dates.get(workspace, ())):
            blocks.setdefault(stretch, []).append(workspace)
    requests = [
        RunRequest(
            run_key=f"{group[0]}..{group[-1]} {first}..{last} "
            f"{_state([states[it] for it in group], now)}",
            asset_selection=EVENT_ASSETS,
            asset_check_keys=[],
            # Before the many runs of a backfill: a lead that turned interested is news.
            tags={
                **block_tags(group, days_between(first, last)),
                EVENTS_TAG: _WAITING,
                PRIORITY_TAG: "10",
            },
        )
        for (first, last), workspaces in sorted(blocks.items())
        for group in contiguous_groups(order, workspaces, most_workspaces)
    ]
    return requests[:_RUNS_A_LOOK]


def _state(group: Sequence[Pending], now: datetime) -> str:
    """What tells the events of a group from those of any other moment."""
    events = sum(it.events for it in group)
    ids = sum(it.last_event for it in group)
    tries = sum(it.tries for it in group)
    return f"{events}/{ids}/{tries}/{int(now.timestamp()) // _AGAIN_AFTER_SECONDS}"
