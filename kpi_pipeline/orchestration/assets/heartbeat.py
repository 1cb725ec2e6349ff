"""Pings the external dead-man's switch around scheduled runs: see `alerts/heartbeat.py`."""

from collections.abc import Iterator
from contextlib import contextmanager

from dagster import DagsterRun

from kpi_pipeline.orchestration.runs import SCHEDULE
from kpi_pipeline.settings import load_settings


@contextmanager
def heartbeat(run: DagsterRun) -> Iterator[None]:
    """Ping when a scheduled run starts, and again when it succeeds or fails.

    Other runs ping nothing: the switch waits for the scheduled ones only.
    """
    if SCHEDULE not in run.tags:
        yield
        return
    # Imported late: loading the definitions imports no HTTP client.
    from kpi_pipeline.alerts.heartbeat import Beat, ping

    url = load_settings().heartbeat_url
    ping(url, Beat.START, run.run_id)
    try:
        yield
    except Exception:
        ping(url, Beat.FAIL, run.run_id)
        raise
    ping(url, Beat.SUCCESS, run.run_id)
