"""The sensor that applies events which the gateway stored without applying them.

The gateway applies an event as it arrives. Left for the sensor are events of dropped files and of
the database's own function, and those that the gateway could not apply: the client was busy for
long, the workspace was no client's yet, or KPI_REALTIME is off.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg
from dagster import SensorEvaluationContext
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.db.check_queries.events import applied_between
from kpi_pipeline.db.coordination.locks import lock_clients
from kpi_pipeline.db.events.overlay import affected_dates, pending_events
from kpi_pipeline.db.registry.clients import active_clients
from kpi_pipeline.db.server.retry import retry_on_disconnect
from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.assets.specs import WEBHOOK_EVENTS
from kpi_pipeline.orchestration.assets.webhook_events import applied_report
from kpi_pipeline.orchestration.automation.event_feed import feed_runs
from kpi_pipeline.orchestration.automation.event_runs import (
    EVENT_ASSETS,
    canceled_up_to,
    event_runs,
    workspaces_in_runs,
)
from kpi_pipeline.orchestration.partitions import WORKSPACE, first_date

if TYPE_CHECKING:
    from kpi_pipeline.app import AppContext
    from kpi_pipeline.inbox.ingest import Inbox

_log = logging.getLogger(__name__)

# Dagster ends an evaluation after 60 s; opening the app has waited for 30 s at most.
_RETRY_SECONDS = 15.0
_REPORT_EVERY = timedelta(minutes=1)
_FIRST_PERIOD = timedelta(hours=1)
# A transaction notes the time at which it began to apply, and is visible a moment later.
_OVERLAP = timedelta(seconds=10)


def build_webhook_event_sensor() -> dg.SensorDefinition:
    """The sensor `webhook_event_sensor`."""

    @dg.sensor(
        name="webhook_event_sensor",
        target=[*EVENT_ASSETS, WEBHOOK_EVENTS],
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Ingests dropped files of events, requests a run that polls the event feed "
        "where that is due, requests runs over the rows that stored events change and that are not "
        "recomputed yet, and reports applied events as materializations, once a minute at most.",
    )
    def webhook_event_sensor(context: SensorEvaluationContext, app: AppResource) -> dg.SensorResult:
        with app.opened() as opened:
            # All of it can be done twice.
            evaluation = partial(evaluate_events, context, opened)
            return retry_on_disconnect(evaluation, seconds=_RETRY_SECONDS)

    return webhook_event_sensor


def evaluate_events(context: SensorEvaluationContext, app: "AppContext") -> dg.SensorResult:
    """One evaluation of the sensor.

    Raises:
        sqlalchemy.exc.DBAPIError: if the database becomes unreachable meanwhile.
    """
    from kpi_pipeline.inbox.ingest import inbox_of
    from kpi_pipeline.inbox.replay import match_and_date

    # It only stores: rows are recomputed in runs, not in the process that serves Dagster.
    inbox = inbox_of(app, realtime=False)
    files_note = _ingest_files(inbox, app)
    match_and_date(inbox)
    requests, grid_note = _requests(context, app)
    requests += feed_runs(context.instance, app)
    reports, cursor = _report(app, context.cursor)
    notes = [note for note in (files_note, grid_note) if note]
    if requests:
        for note in notes:
            context.log.warning(note)
    return dg.SensorResult(
        run_requests=requests,
        # Dagster accepts a reason or requests: a tick with both is an error.
        skip_reason=dg.SkipReason(" ".join(notes)) if notes and not requests else None,
        cursor=cursor,
        asset_events=reports,
    )


def _ingest_files(inbox: "Inbox", app: "AppContext") -> str | None:
    """Store dropped files; a sentence if that fails, which stops nothing else."""
    from kpi_pipeline.inbox.files import REJECTED, ingest_files, prepare_folders

    folder = app.settings.drop_dir
    try:
        prepare_folders(folder)
        report = ingest_files(inbox, folder, list(inbox.instance_urls))
    except DBAPIError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a file causes, the other events go on
        _log.exception("Dropped files could not be ingested")
        reason = str(error) if isinstance(error, OSError | KpiError) else type(error).__name__
        return (
            f"The files of KPI_EVENT_DROP_DIR could not be ingested: {reason}. Check that Dagster "
            "may read and write that folder; the other events are processed all the same."
        )
    if report.rejected:
        return (
            f"{report.rejected} records of dropped files were rejected; `{REJECTED}` in "
            "KPI_EVENT_DROP_DIR has them, with the reasons."
        )
    return None


def _requests(
    context: SensorEvaluationContext, app: "AppContext"
) -> tuple[list[dg.RunRequest], str | None]:
    """The runs that apply the pending events that are due, and a sentence on those without one."""
    now, today = app.now(), app.today()
    with app.engine.connect() as connection:
        pending = pending_events(connection, now)
        if not pending:
            return [], None
        dates = affected_dates(connection, [it.workspace for it in pending], today)
        active = {client.workspace for client in active_clients(connection)}
    order = context.instance.get_dynamic_partitions(WORKSPACE)
    busy = workspaces_in_runs(context.instance, order)
    canceled = canceled_up_to(context.instance, order)
    # The partition of an inactive client may stay for some days; a run would skip the client.
    in_grid = [it for it in order if it in active]
    due = [
        it
        for it in pending
        if it.workspace in in_grid
        and it.workspace not in busy
        and it.last_event > canceled.get(it.workspace, 0)
    ]
    grid_start = first_date(app.settings, today)
    dates_in_grid = {
        workspace: [day for day in days if day >= grid_start] for workspace, days in dates.items()
    }
    _apply_here(app, [it.workspace for it in due if not dates_in_grid.get(it.workspace)])
    requests = event_runs(
        due,
        dates_in_grid,
        order,
        max_workspaces=app.settings.workspaces_per_run,
        now=now,
    )
    return requests, _without_partition(
        [it.workspace for it in pending if it.workspace not in in_grid]
    )


def _apply_here(app: "AppContext", workspaces: Sequence[str]) -> None:
    """Apply events that change no row of the grid: no run could."""
    from kpi_pipeline.inbox.apply import apply_pending

    if not workspaces:
        return
    with app.engine.begin() as connection:
        lock_clients(connection, workspaces)
        apply_pending(connection, workspaces, app.day_zone, app.now())


def _without_partition(workspaces: Sequence[str]) -> str | None:
    if not workspaces:
        return None
    return (
        f"Events of {', '.join(workspaces)} are pending, because they have no partition: "
        "materialize the asset client_registry, and check with `kpi clients list` that the client "
        "is active."
    )


def _report(app: "AppContext", cursor: str | None) -> tuple[list[dg.AssetMaterialization], str]:
    """The materialization that reports the events applied since the cursor; and the new cursor.

    The cursor is the instant up to which events are reported. It stays while none is applied.
    """
    now = app.now()
    since = datetime.fromisoformat(cursor) if cursor else now - _FIRST_PERIOD
    until = now - _OVERLAP
    if until - since >= _REPORT_EVERY:
        with app.engine.connect() as connection:
            applied = applied_between(connection, since, until)
        if applied:
            return [applied_report(applied)], until.isoformat()
    return [], since.isoformat()
