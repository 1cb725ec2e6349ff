"""Writes one client's rows in one transaction: all of them, or none."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.coordination.locks import lock_client
from kpi_pipeline.db.events.inbox import note_failure
from kpi_pipeline.db.events.overlay import mark_applied
from kpi_pipeline.db.facts import (
    delete_future_facts,
    has_counts,
    store_facts,
    store_plan,
)
from kpi_pipeline.db.metrics import DayNumbers, read_day_numbers
from kpi_pipeline.db.recompute import update_rows
from kpi_pipeline.db.server.retry import is_away
from kpi_pipeline.errors import KpiError
from kpi_pipeline.sync.fetch import FetchedFacts


class RowsFailedError(Exception):
    """Computing a client's rows failed unexpectedly; `__cause__` is the original error.

    One of the client's pending events may be the reason.
    """


def store_client(
    app: AppContext,
    workspace: str,
    dates: Sequence[date],
    facts: FetchedFacts | None,
) -> Mapping[date, DayNumbers]:
    """Write the fetched facts, if any, and compute the rows of `dates`.

    All stored rows that the facts and the client's pending events affect are recomputed as well.
    Returns the numbers of `dates` that Dagster plots.

    Raises:
        KpiError: if the facts can't be believed, or the input of a row is missing; the client's
            rows are then as before.
        RowsFailedError: if computing the rows fails otherwise; they are as before, too.
    """
    with app.engine.begin() as connection:
        lock_client(connection, workspace)
        if facts is not None:
            _store_facts(connection, workspace, facts, app.now())
        try:
            _recompute(connection, app, workspace, dates, facts)
        except Exception as error:
            # A full disk or an unreachable server has nothing to do with the events.
            if isinstance(error, (KpiError, OperationalError)) or is_away(error):
                raise
            raise RowsFailedError(workspace) from error
        return read_day_numbers(connection, workspace, dates)


def _store_facts(
    connection: Connection, workspace: str, facts: FetchedFacts, now: datetime
) -> None:
    for first, last in facts.unlisted:
        if has_counts(connection, workspace, first, last):
            raise KpiError(
                f"{workspace}: Email Bison answered the daily series of {first} to {last} without "
                "any day, and counts are stored for this period. The answer is not believed, and "
                "nothing changes. If Email Bison's own page shows these days, try again later."
            )
    # Those of other days stay: their rows are not computed again now.
    delete_future_facts(connection, workspace, min(facts.days), max(facts.days), now)
    store_facts(connection, workspace, facts.days, facts.as_of)
    if facts.plan is not None:
        store_plan(connection, workspace, facts.plan)


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
    facts: FetchedFacts | None,
) -> None:
    now, today = app.now(), app.today()
    applied = {
        day for it in mark_applied(connection, [workspace], app.day_zone, now) for day in it.dates
    }
    changed = {*dates, *applied, *(facts.days if facts else ())}
    update_rows(
        connection,
        [workspace],
        since=min(changed),
        until=max(changed),
        zone=app.day_zone,
        source="sync",
        dates=dates,
        of_events=[today] if today in applied else [],
    )
