"""Notes on a request of the dashboard that its run is under way, and what came of it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dagster import DagsterRun
from sqlalchemy.exc import SQLAlchemyError

from kpi_pipeline.db.dashboard.requests import (
    end_request,
    read_request,
    result_of,
    start_request,
)
from kpi_pipeline.db.sync_log import read_entries
from kpi_pipeline.orchestration.runs import REQUEST

if TYPE_CHECKING:
    from kpi_pipeline.app import AppContext

_log = logging.getLogger(__name__)


@contextmanager
def requested(run: DagsterRun, app: "AppContext") -> Iterator[None]:
    """Note the run of the request when it starts, and the result when its rows are written.

    The sensor `action_requests` notes both as well, a few seconds later: people wait for this.
    A database error is only logged, and leaves it to the sensor.
    """
    if REQUEST not in run.tags:
        yield
        return
    request_id = int(run.tags[REQUEST])
    _note(app, request_id, run.run_id, ended=False)
    yield
    _note(app, request_id, run.run_id, ended=True)


def _note(app: "AppContext", request_id: int, run_id: str, *, ended: bool) -> None:
    try:
        with app.engine.begin() as connection:
            start_request(connection, request_id, run_id)
            request = read_request(connection, request_id)
            if ended and request is not None and request.run_id == run_id:
                entries = read_entries(connection, [run_id])
                result = result_of(request, entries, run_succeeded=True)
                end_request(connection, request_id, *result, app.now())
    except SQLAlchemyError:
        _log.exception("The request %s of the dashboard could not be noted", request_id)
