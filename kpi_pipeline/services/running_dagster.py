"""Dagster for a command that needs it: the one already running, or one started for the command.

Two daemons on one database would execute each run twice: see orchestration/runtime/one_daemon.py.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration.runtime import LOCATION
from kpi_pipeline.services.dagster_home import child_environment
from kpi_pipeline.services.dagster_page import DagsterPage, page_of
from kpi_pipeline.services.processes import Child, require_free_port
from kpi_pipeline.services.servers import (
    dagster_servers,
    report_lost_runs,
    started_in_order,
)
from kpi_pipeline.settings import Settings

if TYPE_CHECKING:
    # Imported late below: Dagster takes more than a second.
    from dagster import DagsterInstance

    from kpi_pipeline.orchestration.runtime.one_daemon import DaemonClaim

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
    page = _page_of(settings, dagster_instance, now)
    if page is not None:
        _require_daemon(page, dagster_instance, now, sleep)
        yield RunningDagster(page, ())
        return
    own = settings.model_copy(update={"web_port": _port(settings)})
    with _one_daemon_or_its_page(settings, say) as claim:
        say("Dagster is not running; starting it until this command ends …")
        try:
            with (
                dagster_servers(own, child_environment(own), claim) as (page, children),
                ExitStack() as stack,
            ):
                started_in_order(stack, children)
                yield RunningDagster(page, children)
        finally:
            _clean_up(dagster_instance)


@contextmanager
def one_daemon(
    settings: Settings, command: str, say: Callable[[str], None]
) -> Iterator["DaemonClaim"]:
    """Hold the claim to be the daemon of Dagster's database during the block.

    Takes the settings of `ready_databases`. `command` is what others are told to stop. It takes
    twelve seconds if the process that had the claim was killed; `say` gets a sentence then.

    Raises:
        KpiError: naming the process that has the claim.
    """
    from kpi_pipeline.orchestration.runtime.databases import storage_address
    from kpi_pipeline.orchestration.runtime.one_daemon import DaemonClaim
    from kpi_pipeline.orchestration.runtime.storage import RetryingRunStorage

    url = {"postgres_url": storage_address(settings)}
    storage = RetryingRunStorage.from_config_value(None, url)
    try:
        # The caller asks whether it is still held: see `dagster_servers`.
        claim = DaemonClaim(storage, say, on_loss=lambda _: None)
        claim.take(command)
        try:
            yield claim
        finally:
            claim.release()
    finally:
        storage.dispose()


@contextmanager
def _one_daemon_or_its_page(
    settings: Settings, say: Callable[[str], None]
) -> Iterator["DaemonClaim"]:
    """As `one_daemon`; the error of a claim that is held says how to use the other daemon."""
    from kpi_pipeline.orchestration.runtime.claim import DaemonRunningError

    with ExitStack() as stack:
        try:
            claim = stack.enter_context(one_daemon(settings, "kpi backfill", say))
        except DaemonRunningError as error:
            raise KpiError(
                f"{error} To use it, set KPI_WEB_PORT (now {settings.web_port}) to the port of its "
                "page, and KPI_WEB_PASSWORD to its password, if it has one."
            ) from None
        yield claim


def heartbeats(dagster_instance: "DagsterInstance") -> dict[str, float]:
    """The timestamp of the last heartbeat of each kind of daemon, by its machine's clock."""
    return {kind: it.timestamp for kind, it in dagster_instance.get_daemon_heartbeats().items()}


def _page_of(
    settings: Settings, dagster_instance: "DagsterInstance", now: Callable[[], datetime]
) -> DagsterPage | None:
    """The page at the configured port, or that of the claim, if it belongs to this installation.

    It does if it shows the heartbeats of this installation's database: another installation has
    the same code, and may have its page at this port.
    """
    from kpi_pipeline.orchestration.runtime.claim import read_claim

    urls = [settings.local_page_url] if settings.web_port else []
    claim = read_claim(dagster_instance)
    if claim is not None and claim.page and claim.is_alive(now()):
        urls.append(claim.page)
    found = (_if_ours(page_of(settings, url), dagster_instance) for url in dict.fromkeys(urls))
    return next((page for page in found if page is not None), None)


def _if_ours(page: DagsterPage, dagster_instance: "DagsterInstance") -> DagsterPage | None:
    before = heartbeats(dagster_instance)
    try:
        answer = page.query(_IDENTITY, {}, timeout=30)
    except KpiError:
        return None
    entries = answer["workspaceOrError"].get("locationEntries", [])
    if LOCATION not in {entry["name"] for entry in entries}:
        return None
    after = heartbeats(dagster_instance)
    shown = {it["daemonType"]: it["lastHeartbeatTime"] for it in _daemons(answer)}
    # A heartbeat may be written between the two reads of the database.
    same = all(shown[kind] in (before.get(kind), after.get(kind)) for kind in shown)
    return page if same else None


def _daemons(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    statuses: list[dict[str, Any]] = answer["instance"]["daemonHealth"]["allDaemonStatuses"]
    return statuses


def _require_daemon(
    page: DagsterPage,
    dagster_instance: "DagsterInstance",
    now: Callable[[], datetime],
    sleep: Callable[[float], None],
) -> None:
    deadline = now() + _START_TAKES
    while not _is_running(page, dagster_instance, now()):
        if now() > deadline:
            raise KpiError(
                f"Dagster's page at {page.url} is running, but its daemon is not, so no run would "
                "start. Stop the page, and start both with `kpi up`."
            )
        sleep(_POLL_SECONDS)


def _is_running(page: DagsterPage, dagster_instance: "DagsterInstance", now: datetime) -> bool:
    from kpi_pipeline.orchestration.runtime.claim import read_claim

    daemons = [it for it in _daemons(page.query(_IDENTITY, {})) if it["required"]]
    if not all(it["healthy"] for it in daemons):
        return False
    # "Healthy" alone covers the last half hour. Heartbeats have the time of the daemon's machine,
    # claims that of the database.
    claim = read_claim(dagster_instance)
    if claim is not None and claim.daemon and claim.is_alive(now):
        return True
    latest = max((it["lastHeartbeatTime"] or 0.0 for it in daemons), default=0.0)
    return now.timestamp() - latest < _SILENCE_SECONDS


def _port(settings: Settings) -> int:
    """The configured port, at which other commands find Dagster; any other if it is in use."""
    try:
        require_free_port(settings.web_port, "KPI_WEB_PORT")
    except KpiError:
        return 0
    return settings.web_port


def _clean_up(dagster_instance: "DagsterInstance") -> None:
    """Remove the traces of stopped processes: heartbeats would keep the next command waiting."""
    dagster_instance.wipe_daemon_heartbeats()
    report_lost_runs(dagster_instance)
