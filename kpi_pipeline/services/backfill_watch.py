"""Watches a backfill to its end, and bears with a page or a database that is gone for a moment."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from dagster import DagsterInstance
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import OperationalError

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.sync_log import read_entries
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.backfill_page import BackfillStatus, read_status
from kpi_pipeline.services.backfill_progress import BackfillProgress
from kpi_pipeline.services.backfill_runs import own_runs
from kpi_pipeline.services.console import err
from kpi_pipeline.services.dagster_page import PageSilentError
from kpi_pipeline.services.running_dagster import RunningDagster, seconds_of_silence

_LOOK_EVERY_SECONDS = 2.0
_PATIENCE = timedelta(seconds=60)
_DAEMON_SILENCE_SECONDS = 120.0

T = TypeVar("T")


def watch_backfill(
    app: AppContext,
    instance: DagsterInstance,
    dagster: RunningDagster,
    backfill_id: str,
    sleep: Callable[[float], None] = time.sleep,
) -> BackfillStatus:
    """Show how the backfill gets on, until it has ended; return how it stands then.

    Raises:
        KpiError: if Dagster stops, or a database is out of reach for a minute.
    """

    def look() -> tuple[BackfillStatus, int, float]:
        dagster.require_alive()
        status = read_status(dagster.page, backfill_id)
        with app.engine.connect() as connection:
            entries = read_entries(connection, own_runs(instance, backfill_id))
        silence = seconds_of_silence(instance, app.now())
        return status, sum(entry.api_calls for entry in entries), silence

    started = app.now()
    with BackfillProgress(err) as progress:
        while True:
            status, api_calls, silence = patiently(look, app.now, sleep)
            progress.show(status, api_calls)
            if status.ended:
                return status
            # A daemon that has only just been started has told nothing yet.
            silence = min(silence, (app.now() - started).total_seconds())
            if silence > _DAEMON_SILENCE_SECONDS:
                raise KpiError(
                    f"Dagster's daemon has given no sign of life for {silence:.0f} s, so the "
                    "backfill stands still. Start Dagster again with `kpi up`."
                )
            sleep(_LOOK_EVERY_SECONDS)


def patiently(
    ask: Callable[[], T], now: Callable[[], datetime], sleep: Callable[[float], None]
) -> T:
    """The answer of `ask`, which is asked again for a minute while nothing answers.

    Raises:
        KpiError: if nothing has answered by then.
    """
    deadline = now() + _PATIENCE
    while True:
        try:
            return ask()
        except PageSilentError:
            if now() >= deadline:
                raise
        except (OperationalError, DagsterPostgresException):
            if now() >= deadline:
                raise KpiError(
                    "The database has been out of reach for a minute. Check that it runs."
                ) from None
        sleep(_LOOK_EVERY_SECONDS)
