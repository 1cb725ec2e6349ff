"""Dagster for a command that needs it: the one that runs already, or one of the command's own."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration.runtime.code_server import LOCATION
from kpi_pipeline.services.console import err
from kpi_pipeline.services.dagster_home import child_environment
from kpi_pipeline.services.dagster_page import DagsterPage
from kpi_pipeline.services.processes import Child, require_free_port
from kpi_pipeline.services.servers import dagster_servers
from kpi_pipeline.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

# A daemon at work gives a sign of life every 30 s, and needs some to do it on a busy machine.
_SILENCE_SECONDS = 60.0
# `kpi up` has its page ready some seconds before its daemon.
_START_TAKES = timedelta(seconds=30)
_LOOK_EVERY_SECONDS = 1.0
_WHO = """
{
  workspaceOrError { ... on Workspace { locationEntries { name } } }
  instance { daemonHealth { allDaemonStatuses {
    daemonType required healthy lastHeartbeatTime
  } } }
}
"""


@dataclass(frozen=True)
class RunningDagster:
    """A page and a daemon at work; `children` are empty where another command started them."""

    page: DagsterPage
    children: Sequence[Child]

    def require_alive(self) -> None:
        """Raise a KpiError if a process that this command started has ended."""
        for child in self.children:
            child.require_alive()


@contextmanager
def running_dagster(
    settings: Settings,
    instance: "DagsterInstance",
    now: Callable[[], datetime],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[RunningDagster]:
    """Join the Dagster that works on this installation's database, or start one for the block.

    Raises:
        KpiError: if only its page or only its daemon is there, or what is started does not start.
    """
    page = _page_of(settings, instance)
    if page is not None:
        _require_daemon(page, now, sleep)
        yield RunningDagster(page, ())
        return
    _require_no_daemon(settings, instance, now, sleep)
    err.print("Dagster is not running; starting it for as long as this command lasts …")
    own = settings.model_copy(update={"web_port": _port(settings)})
    try:
        with dagster_servers(own, child_environment(own)) as (page, children):
            yield RunningDagster(page, children)
    finally:
        _clear_up(instance)


def seconds_of_silence(instance: "DagsterInstance", now: datetime) -> float:
    """For how long no daemon has given a sign of life in this installation's database."""
    return now.timestamp() - max(_heartbeats(instance).values(), default=0.0)


def _page_of(settings: Settings, instance: "DagsterInstance") -> DagsterPage | None:
    """The page at the configured port, if it is one of this installation.

    It is if it tells of the very signs of life that stand in this installation's database: other
    installations have the same code, and may have their page at this port.
    """
    if settings.web_port == 0:
        return None
    page = DagsterPage(f"http://127.0.0.1:{settings.web_port}")
    before = _heartbeats(instance)
    try:
        answer = page.query(_WHO, {}, timeout=30)
    except KpiError:
        return None
    entries = answer["workspaceOrError"].get("locationEntries", [])
    if LOCATION not in {entry["name"] for entry in entries}:
        return None
    after = _heartbeats(instance)
    told = {it["daemonType"]: it["lastHeartbeatTime"] for it in _daemons(answer)}
    # One may come between the two looks at the database.
    same = all(told[kind] in (before.get(kind), after.get(kind)) for kind in told)
    return page if same else None


def _daemons(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = answer["instance"]["daemonHealth"]["allDaemonStatuses"]
    return told


def _heartbeats(instance: "DagsterInstance") -> dict[str, float]:
    return {kind: it.timestamp for kind, it in instance.get_daemon_heartbeats().items()}


def _require_daemon(
    page: DagsterPage, now: Callable[[], datetime], sleep: Callable[[float], None]
) -> None:
    deadline = now() + _START_TAKES
    while not _is_at_work(page, now()):
        if now() > deadline:
            raise KpiError(
                f"Dagster's page at {page.url} is up, but its daemon is not, so nothing that is "
                "asked for would be done. Stop the page, and start both with `kpi up`."
            )
        sleep(_LOOK_EVERY_SECONDS)


def _is_at_work(page: DagsterPage, now: datetime) -> bool:
    daemons = [it for it in _daemons(page.query(_WHO, {})) if it["required"]]
    # "Healthy" alone tells of the last half hour.
    latest = max((it["lastHeartbeatTime"] or 0.0 for it in daemons), default=0.0)
    return all(it["healthy"] for it in daemons) and now.timestamp() - latest < _SILENCE_SECONDS


def _require_no_daemon(
    settings: Settings,
    instance: "DagsterInstance",
    now: Callable[[], datetime],
    sleep: Callable[[float], None],
) -> None:
    """Two daemons on one database would start each run twice."""
    seen = _heartbeats(instance)
    if seconds_of_silence(instance, now()) < _SILENCE_SECONDS:
        err.print("A Dagster daemon was at work a moment ago; looking whether it still is …")
    while seconds_of_silence(instance, now()) < _SILENCE_SECONDS:
        if _heartbeats(instance) != seen:
            raise KpiError(
                "A Dagster daemon is at work on this installation's database, but its page was not "
                f"found. Set KPI_WEB_PORT (now {settings.web_port}) to the port of its page, or "
                "stop the daemon."
            )
        sleep(_LOOK_EVERY_SECONDS)


def _port(settings: Settings) -> int:
    """The configured port, where `kpi up` would see that Dagster runs; any other if it is taken."""
    try:
        require_free_port(settings.web_port, "KPI_WEB_PORT")
    except KpiError:
        return 0
    return settings.web_port


def _clear_up(instance: "DagsterInstance") -> None:
    """Leave no trace of processes that have been stopped.

    Their signs of life would keep the next command waiting. And Dagster would take their runs to
    be at work for hours; a failed one it starts again by itself when it is back.
    """
    from dagster import DagsterRunStatus, RunsFilter

    instance.wipe_daemon_heartbeats()
    at_work = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED]
    for run in instance.get_runs(RunsFilter(statuses=at_work)):
        if run.remote_job_origin is not None:
            instance.report_run_failed(run, "Dagster was stopped while this run was at work.")
