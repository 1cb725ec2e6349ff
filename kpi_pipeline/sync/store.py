"""Writes one client's rows in one transaction: all of them, or none."""

from collections.abc import Collection, Mapping, Sequence
from datetime import date

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.facts import store_facts, store_plan
from kpi_pipeline.db.inbox import note_failure
from kpi_pipeline.db.locks import lock_client
from kpi_pipeline.db.metrics import (
    DayNumbers,
    publish_metrics,
    read_day_numbers,
    recompute_projections,
)
from kpi_pipeline.db.overlay import mark_applied
from kpi_pipeline.db.retry import is_away
from kpi_pipeline.errors import KpiError
from kpi_pipeline.inbox.apply import apply_pending
from kpi_pipeline.sync.fetch import FetchedFacts
from kpi_pipeline.sync.scope import KpiAsset


class RowsFailedError(Exception):
    """Computing a client's rows failed unexpectedly; `__cause__` is the original error.

    One of the client's pending events may be the reason.
    """


def store_client(
    app: AppContext,
    workspace: str,
    dates: Sequence[date],
    assets: Collection[KpiAsset],
    facts: FetchedFacts | None,
) -> Mapping[date, DayNumbers]:
    """Write the fetched facts, and recompute the rows of `dates` in the other `assets`.

    Returns the numbers that Dagster plots, by date.

    Raises:
        KpiError: if an asset's input is missing; the client's rows are then as before.
        RowsFailedError: if computing the rows fails otherwise; they are as before, too.
    """
    with app.engine.begin() as connection:
        lock_client(connection, workspace)
        if facts is not None:
            store_facts(connection, workspace, facts.days, facts.as_of)
            if facts.plan is not None:
                store_plan(connection, workspace, facts.plan)
        try:
            _recompute(connection, app, workspace, dates, assets)
        except Exception as error:
            # A full disk or an unreachable server has nothing to do with the events.
            if isinstance(error, (KpiError, OperationalError)) or is_away(error):
                raise
            raise RowsFailedError(workspace) from error
        return read_day_numbers(connection, workspace, dates)


def count_failed_try(app: AppContext, workspace: str, kind: str) -> None:
    """Count a failed try for the client's pending events; `kind` is the type of the error.

    After the fifth try they are set aside, so one bad event can't block the client's rows for good.
    """
    reason = (
        f"Computing the rows of {workspace} failed ({kind}) with this event and any others that "
        "were pending: which of them is the reason is not known."
    )
    with app.engine.begin() as connection:
        note_failure(connection, [workspace], reason, app.now())


def _recompute(
    connection: Connection,
    app: AppContext,
    workspace: str,
    dates: Sequence[date],
    assets: Collection[KpiAsset],
) -> None:
    today, now = app.today(), app.now()
    if KpiAsset.PROJECTIONS in assets:
        recompute_projections(connection, [workspace], dates, app.timezone, open_day=today)
    if KpiAsset.METRICS in assets:
        publish_metrics(connection, [workspace], dates, source="sync")
    if {KpiAsset.PROJECTIONS, KpiAsset.METRICS} <= set(assets):
        mark_applied(connection, [workspace], dates, today=today, now=now)
        # Some events affect rows beyond these dates, across a gap in the facts or before the first
        # partition. Runs that each cover a part of these rows would never mark them applied.
        apply_pending(connection, [workspace], app.timezone, now)
