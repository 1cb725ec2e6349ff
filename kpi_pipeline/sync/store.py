"""One client's rows, written in one transaction: all of them, or none."""

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
    """A client's rows could not be worked out, for a reason that nobody foresaw.

    It may be one of the client's waiting events. The trouble itself is the cause.
    """


def store_client(
    app: AppContext,
    workspace: str,
    dates: Sequence[date],
    steps: Collection[KpiAsset],
    facts: FetchedFacts | None,
) -> Mapping[date, DayNumbers]:
    """Write what was fetched, and work out the rows of `dates` anew, as far as `steps` ask for it.

    Returns the numbers that Dagster plots, by date.

    Raises:
        KpiError: if a step finds nothing to stand on; the client's rows are as before then.
        RowsFailedError: if working out the rows fails otherwise; they are as before, too.
    """
    with app.engine.begin() as connection:
        lock_client(connection, workspace)
        if facts is not None:
            store_facts(connection, workspace, facts.days, facts.as_of)
            if facts.plan is not None:
                store_plan(connection, workspace, facts.plan)
        try:
            _work_out(connection, app, workspace, dates, steps)
        except Exception as trouble:
            # A full disk or a server that is away is no event's fault.
            if isinstance(trouble, (KpiError, OperationalError)) or is_away(trouble):
                raise
            raise RowsFailedError(workspace) from trouble
        return read_day_numbers(connection, workspace, dates)


def count_a_try(app: AppContext, workspace: str, trouble: str) -> None:
    """Count a try for the events that waited while the client's rows could not be worked out.

    After the fifth they are set aside, so that what one event breaks does not stay broken.
    """
    reason = (
        f"Working out the rows of {workspace} failed ({trouble}) with this event and any other "
        "that waited: which of them is to blame is not known."
    )
    with app.engine.begin() as connection:
        note_failure(connection, [workspace], reason, app.now())


def _work_out(
    connection: Connection,
    app: AppContext,
    workspace: str,
    dates: Sequence[date],
    steps: Collection[KpiAsset],
) -> None:
    today, now = app.today(), app.now()
    if KpiAsset.PROJECTIONS in steps:
        recompute_projections(connection, [workspace], dates, app.timezone, open_day=today)
    if KpiAsset.METRICS in steps:
        publish_metrics(connection, [workspace], dates, source="sync")
    if {KpiAsset.PROJECTIONS, KpiAsset.METRICS} <= set(steps):
        mark_applied(connection, [workspace], dates, today=today, now=now)
        # An event whose rows reach beyond these dates, over a gap in the facts or before the first
        # date of the grid, would never be settled by runs, each of which covers a part of them.
        apply_pending(connection, [workspace], app.timezone, now)
