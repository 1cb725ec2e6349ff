"""Dagster for a command that needs it: the one already running, or one started for the command."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration.runtime import LOCATION
from kpi_pipeline.services.dagster_home import child_environment
from kpi_pipeline.services.dagster_page import DagsterPage
from kpi_pipeline.services.processes import Child, require_free_port
from kpi_pipeline.services.servers import dagster_servers
from kpi_pipeline.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

# A running daemon sends a heartbeat every 30 s, later on a busy machine.
_SILENCE_SECONDS = 60.0
# `kpi up` has its page ready some seconds before its daemon.
_START_TAKES = timedelta(seconds=30)
_POLL_SECONDS = 1.0
_IDENTITY = """
{
  workspaceOrError { ... on Workspace { locationEntries { name } } }
  instance { daemonHealth { allDaemonStatuses {
    daemonType required healthy lastHeartbeatTime
  } } }
}
"""


@dataclass(frozen=True)
class RunningDagster:
    """A running page and daemon; `children` is empty if another command started them."""

    page: DagsterPage
    children: Sequence[Child]

    def require_alive(self) -> None:
        """Raise a KpiError if a process that this command started has ended."""
        for child in self.children:
            child.require_alive()


@contextmanager
def running_dagster(
    settings: Settings,
    dagster_instance: "DagsterInstance",
    now: Callable[[], datetime],
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[RunningDagster]:
    """Join the Dagster that works on this installation's database, or start one for the block.

    `say` gets sentences about what takes time, for the user.

    Raises:
        KpiError: if only its page or only its daemon is running, or Dagster does not start.
    """
    page = _page_of(settings, dagster_instance)
    if page is not None:
        _require_daemon(page, now, sleep)
        yield RunningDagster(page, ())
        return
    _require_no_daemon(settings, dagster_instance, now, say, sleep)
    say("Dagster is not running; starting it until this command ends …")
    own = settings.model_copy(update={"web_port": _port(settings)})
    try:
        with dagster_servers(own, child_environment(own)) as (page, children):
            yield RunningDagster(page, children)
    finally:
        _clean_up(dagster_instance)


def seconds_of_silence(dagster_instance: "DagsterInstance", now: datetime) -> float:
    """The seconds since a daemon last wrote a heartbeat to this installation's database."""
    return now.timestamp() - max(_heartbeats(dagster_instance).values(), default=0.0)


def _page_of(settings: Settings, dagster_instance: "DagsterInstance") -> DagsterPage | None:
    """The page at the configured port, if it belongs to this installation.

    It does if it shows the heartbeats of this installation's database: another installation has
    the same code, and may have its page at this port.
    """
    if settings.web_port == 0:
        return None
    page = DagsterPage(f"http://127.0.0.1:{settings.web_port}")
    before = _heartbeats(dagster_instance)
    try:
        answer = page.query(_IDENTITY, {}, timeout=30)
    except KpiError:
        return None
    entries = answer["workspaceOrError"].get("locationEntries", [])
    if LOCATION not in {entry["name"] for entry in entries}:
        return None
    after = _heartbeats(dagster_instance)
    shown = {it["daemonType"]: it["lastHeartbeatTime"] for it in _daemons(answer)}
    # A heartbeat may be written between the two reads of the database.
    same = all(shown[kind] in (before.get(kind), after.get(kind)) for kind in shown)
    return page if same else None


def _daemons(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    statuses: list[dict[str, Any]] = answer["instance"]["daemonHealth"]["allDaemonStatuses"]
    return statuses


def _heartbeats(dagster_instance: "DagsterInstance") -> dict[str, float]:
    return {kind: it.timestamp for kind, it in dagster_instance.get_daemon_heartbeats().items()}


def _require_daemon(
    page: DagsterPage, now: Callable[[], datetime], sleep: Callable[[float], None]
) -> None:
    deadline = now() + _START_TAKES
    while not _is_running(page, now()):
        if now() > deadline:
            raise KpiError(
                f"Dagster's page at {page.url} is running, but its daemon is not, so no run would "
                "start. Stop the page, and start both with `kpi up`."
            )
        sleep(_POLL_SECONDS)


def _is_running(page: DagsterPage, now: datetime) -> bool:
    daemons = [it for it in _daemons(page.query(_IDENTITY, {})) if it["required"]]
    # "Healthy" alone covers the last half hour.
    latest = max((it["lastHeartbeatTime"] or 0.0 for it in daemons), default=0.0)
    return all(it["healthy"] for it in daemons) and now.timestamp() - latest < _SILENCE_SECONDS


def _require_no_daemon(
    settings: Settings,
    dagster_instance: "DagsterInstance",
    now: Callable[[], datetime],
    say: Callable[[str], None],
    sleep: Callable[[float], None],
) -> None:
    """Two daemons on one database would start each run twice."""
    seen = _heartbeats(dagster_instance)
    if seconds_of_silence(dagster_instance, now()) < _SILENCE_SECONDS:
        say("A Dagster daemon was running a moment ago; checking whether it still is …")
    while seconds_of_silence(dagster_instance, now()) < _SILENCE_SECONDS:
        if _heartbeats(dagster_instance) != seen:
            raise KpiError(
                "A Dagster daemon is running on this installation's database, but its page was not "
                f"found. Set KPI_WEB_PORT (now {settings.web_port}) to the port of its page, or "
                "stop the daemon."
            )
        sleep(_POLL_SECONDS)


def _port(settings: Settings) -> int:
    """The configured port, at which other commands find Dagster; any other if it is in use."""
    try:
        require_free_port(settings.web_port, "KPI_WEB_PORT")
    except KpiError:
        return 0
    return settings.web_port


def _clean_up(dagster_instance: "DagsterInstance") -> None:
    """Remove the traces of stopped processes.

    Their heartbeats would keep the next command waiting, and Dagster would show their runs as
    running for hours. It starts failed ones again the next time it runs.
    """
    from dagster import DagsterRunStatus, RunsFilter

    dagster_instance.wipe_daemon_heartbeats()
    under_way = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED]
    for run in dagster_instance.get_runs(RunsFilter(statuses=under_way)):
        if run.remote_job_origin is not None:
            dagster_instance.report_run_failed(run, "Dagster was stopped during this run.")
