"""The runs that apply stored events: one for each block of clients and dates."""

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime

import dagster as dg
from dagster import DagsterInstance, RunRequest

from kpi_pipeline.db.events.overlay import Pending
from kpi_pipeline.domain.calendar import consecutive_ranges, days_between
from kpi_pipeline.orchestration.partitions import block_from_tags, block_tags, contiguous_groups
from kpi_pipeline.orchestration.runs import (
    EVENTS_PRIORITY,
    EVENTS_TAG,
    LAST_EVENT,
    NOT_FINISHED,
    PRIORITY,
    WITHOUT_FETCH,
    is_canceled,
)
from kpi_pipeline.sync.scope import KpiAsset

EVENT_ASSETS = [dg.AssetKey(KpiAsset.PROJECTIONS.value), dg.AssetKey(KpiAsset.METRICS.value)]

_PENDING = "pending"
# The next evaluations request the rest.
_MAX_RUNS = 25
_RUNS_READ = 100
# Events of a run that failed for another reason than an event stay as they were: they are requested
# again after this time, and not at each evaluation.
_REPEAT_SECONDS = 300


def workspaces_in_runs(dagster_instance: DagsterInstance, order: Sequence[str]) -> set[str]:
    """The workspaces that an unfinished run of this kind covers."""
    filters = dg.RunsFilter(statuses=NOT_FINISHED, tags={EVENTS_TAG: _PENDING})
    blocks = [block_from_tags(it.tags, order) for it in dagster_instance.get_runs(filters=filters)]
    return {workspace for block in blocks if block is not None for workspace in block.workspaces}


def canceled_up_to(dagster_instance: DagsterInstance, order: Sequence[str]) -> dict[str, int]:
    """The last event of each workspace whose run of this kind a person canceled.

    These events wait for the next sync of the client, which applies them as well, or for a newer
    event.
    """
    filters = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.FAILURE],
        tags={EVENTS_TAG: _PENDING},
    )
    last: dict[str, int] = {}
    for run in filter(is_canceled, dagster_instance.get_runs(filters=filters, limit=_RUNS_READ)):
        block = block_from_tags(run.tags, order)
        for workspace in block.workspaces if block is not None else ():
            last[workspace] = max(last.get(workspace, 0), int(run.tags.get(LAST_EVENT, 0)))
    return last


def event_runs(
    pending: Collection[Pending],
    dates: Mapping[str, Sequence[date]],
    order: Sequence[str],
    *,
    max_workspaces: int,
    now: datetime,
) -> list[RunRequest]:
    """A run for each range of consecutive dates and group of contiguous workspaces.

    `dates` are the dates of each workspace whose rows the events change. The run key names the
    events, so no evaluation requests the same run twice.
    """
    by_workspace = {it.workspace: it for it in pending}
    blocks: dict[tuple[date, date], list[str]] = {}
    for workspace in by_workspace:
        for range_ in consecutive_ranges(dates.get(workspace, ())):
            blocks.setdefault(range_, []).append(workspace)
    requests = [
        RunRequest(
            run_key=f"{group[0]}..{group[-1]} {first}..{last} "
            f"{_fingerprint([by_workspace[it] for it in group], now)}",
            asset_selection=EVENT_ASSETS,
            asset_check_keys=[],
            # The facts are stored, and a fetch would not return what arrived since.
            run_config=WITHOUT_FETCH,
            # Before all others: people wait for a new lead.
            tags={
                **block_tags(group, days_between(first, last)),
                EVENTS_TAG: _PENDING,
                LAST_EVENT: str(max(by_workspace[it].last_event for it in group)),
                PRIORITY: EVENTS_PRIORITY,
            },
        )
        for (first, last), workspaces in sorted(blocks.items())
        for group in contiguous_groups(order, workspaces, max_workspaces)
    ]
    return requests[:_MAX_RUNS]


def _fingerprint(group: Sequence[Pending], now: datetime) -> str:
    """Differs whenever the pending events of the group, or their number of tries, differ."""
    events = sum(it.events for it in group)
    ids = sum(it.last_event for it in group)
    tries = sum(it.tries for it in group)
    return f"{events}/{ids}/{tries}/{int(now.timestamp()) // _REPEAT_SECONDS}"
