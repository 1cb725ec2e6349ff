"""Tells the watch from outside how scheduled work goes: see `alerting/heartbeat.py`."""

from collections.abc import Iterator
from contextlib import contextmanager

from dagster import DagsterRun
from dagster._core.storage.tags import SCHEDULE_NAME_TAG

from kpi_pipeline.settings import load_settings


@contextmanager
def watched(run: DagsterRun) -> Iterator[None]:
    """Tell that the run began, and that it went well or failed.

    Runs that no schedule started do not concern the watch: it waits for those that are due.
    """
    if SCHEDULE_NAME_TAG not in run.tags:
        yield
        return
    # Imported late: whoever only loads the definitions calls nobody.
    from kpi_pipeline.alerting.heartbeat import Beat, heartbeat

    url = load_settings().heartbeat_url
    heartbeat(url, Beat.START, run.run_id)
    try:
        yield
    except Exception:
        heartbeat(url, Beat.FAIL, run.run_id)
        raise
    heartbeat(url, Beat.SUCCESS, run.run_id)
