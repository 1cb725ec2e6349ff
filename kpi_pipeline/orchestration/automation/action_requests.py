"""The sensor that turns what people ask for on the dashboard into runs.

The dashboard knows no Dagster: it writes a row of the table `action_requests`, and reads there what
came of it.
"""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunRequest, RunsFilter
from sqlalchemy import Connection

from kpi_pipeline.db.dashboard.requests import (
    ActionRequest,
    Status,
    end_request,
    not_active,
    open_requests,
    result_of,
    start_request,
)
from kpi_pipeline.db.registry.clients import active_clients
from kpi_pipeline.db.server.retry import retry_on_disconnect
from kpi_pipeline.db.sync_log import read_entries
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.partitions import (
    GRID_ASSETS,
    WORKSPACE,
    add_workspaces,
    block_tags,
    first_date,
)
from kpi_pipeline.orchestration.runs import (
    FINISHED,
    PRIORITY,
    REQUEST,
    REQUEST_PRIORITY,
    WILL_RETRY,
    is_canceled,
)

if TYPE_CHECKING:
    from kpi_pipeline.app import AppContext

# Dagster ends an evaluation after 60 s; opening the app has waited for 30 s at most.
_RETRY_SECONDS = 15.0
_LOST = "Dagster no longer knows its run, which may have ended or not. Ask for it again."


def build_request_sensor() -> dg.SensorDefinition:
    """The sensor `action_requests`."""

    @dg.sensor(
        name="action_requests",
        target=GRID_ASSETS,
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Requests a run for each request of the dashboard (refresh, fill a gap), and "
        "notes there what came of it.",
    )
    def action_requests(
        context: dg.SensorEvaluationContext, app: AppResource
    ) -> list[RunRequest] | dg.SkipReason:
        with app.opened() as opened:
            # All of it can be done twice.
            evaluation = partial(evaluate_requests, context.instance, opened)
            runs = retry_on_disconnect(evaluation, seconds=_RETRY_SECONDS)
        return runs or dg.SkipReason("Nobody waits for a run.")

    return action_requests


def evaluate_requests(dagster_instance: DagsterInstance, app: "AppContext") -> list[RunRequest]:
    """One evaluation of the sensor: note how far the runs are, and return those to request.

    A tick that is repeated requests the same runs: Dagster starts one of each run key.
    """
    with app.engine.begin() as connection:
        waiting = [
            request
            for request in open_requests(connection)
            if not _follow(dagster_instance, app, connection, request)
        ]
        return list(_requests(dagster_instance, app, connection, waiting))


def _follow(
    dagster_instance: DagsterInstance,
    app: "AppContext",
    connection: Connection,
    request: ActionRequest,
) -> bool:
    """Note how far the run of the request is; return whether it has had one."""
    # The latest first: a run whose process died is restarted as another one.
    runs = dagster_instance.get_runs(RunsFilter(tags={REQUEST: str(request.id)}), limit=10)
    run = next((it for it in runs if it.status not in FINISHED), runs[0] if runs else None)
    end = partial(end_request, connection, request.id, now=app.now())
    if run is None:
        if request.run_id is not None:
            end(Status.FAILED, _LOST)
        return request.run_id is not None
    start_request(connection, request.id, run.run_id)
    if _goes_on(run):
        return True
    if is_canceled(run):
        end(Status.CANCELED, "Somebody canceled its run in Dagster.")
        return True
    entries = read_entries(connection, [run.run_id])
    succeeded = run.status is DagsterRunStatus.SUCCESS
    end(*result_of(request, entries, run_succeeded=succeeded))
    return True


def _goes_on(run: DagsterRun) -> bool:
    """Whether the run has not ended, or Dagster restarts it."""
    return run.status not in FINISHED or run.tags.get(WILL_RETRY) == "true"


def _requests(
    dagster_instance: DagsterInstance,
    app: "AppContext",
    connection: Connection,
    waiting: list[ActionRequest],
) -> Iterator[RunRequest]:
    """One run for each request: from its first to its last client in the order of the grid.

    Clients in between that are not of the request are inactive, which a run skips; or they were
    activated since, and are fetched too.
    """
    if not waiting:
        return
    active = {client.workspace for client in active_clients(connection)}
    wanted = {it for request in waiting for it in request.workspaces if it in active}
    # One that was activated on the dashboard has no partition before the next night.
    add_workspaces(dagster_instance, sorted(wanted))
    order = dagster_instance.get_dynamic_partitions(WORKSPACE)
    grid_start = first_date(app.settings, app.today())
    for request in waiting:
        group = [it for it in order if it in request.workspaces and it in active]
        first = max(request.first_date, grid_start)
        if not group:
            message = f"{not_active(request.workspaces)} Nothing was fetched."
            end_request(connection, request.id, Status.FAILED, message, app.now())
        elif first > request.last_date:
            message = f"These days are before {grid_start}, the first date of the grid."
            end_request(connection, request.id, Status.FAILED, message, app.now())
        else:
            yield RunRequest(
                run_key=f"request {request.id}",
                asset_selection=GRID_ASSETS,
                # A run of checks follows when all syncs have ended.
                asset_check_keys=[],
                tags={
                    **block_tags(group, days_between(first, request.last_date)),
                    REQUEST: str(request.id),
                    PRIORITY: REQUEST_PRIORITY,
                },
            )
