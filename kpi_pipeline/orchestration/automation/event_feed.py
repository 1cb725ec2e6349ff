"""The runs that poll the event feed. A poll makes calls, so no evaluation of a sensor does it."""

from typing import TYPE_CHECKING

import dagster as dg
from dagster import DagsterInstance, RunRequest

from kpi_pipeline.orchestration.assets.specs import WEBHOOK_EVENTS
from kpi_pipeline.orchestration.runs import (
    EVENTS_PRIORITY,
    FEED_TAG,
    NOT_FINISHED,
    PRIORITY,
    is_syncing,
)

if TYPE_CHECKING:
    from kpi_pipeline.app import AppContext

_POLL = "poll"


def feed_runs(dagster_instance: DagsterInstance, app: "AppContext") -> list[RunRequest]:
    """The run that polls the event feed if it is due, unless one does so already."""
    from kpi_pipeline.sync.feed_due import feed_is_due

    if not feed_is_due(app, syncing=lambda: is_syncing(dagster_instance)):
        return []
    filters = dg.RunsFilter(statuses=NOT_FINISHED, tags={FEED_TAG: _POLL})
    if dagster_instance.get_runs(filters=filters, limit=1):
        return []
    return [
        RunRequest(
            # One that fails at once is requested again after a minute.
            run_key=f"feed {app.now():%Y-%m-%dT%H:%M}",
            asset_selection=[WEBHOOK_EVENTS],
            asset_check_keys=[],
            # Before the many runs of a backfill: people wait for a new lead.
            tags={FEED_TAG: _POLL, PRIORITY: EVENTS_PRIORITY},
        )
    ]
