"""Dagster's code server, daemon and page, each as a process of its own: for containers and units.

`kpi up` starts all three as its children. Here each is what its container runs, and finds the code
server at an address. The daemon takes the claim to be the one of its database by its heartbeats.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sqlalchemy.exc import OperationalError

from kpi_pipeline.app import open_app
from kpi_pipeline.db.dagster_tables import open_dagster_database, read_activity
from kpi_pipeline.db.server.addresses import dagster_address
from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration.runtime import LOCATION
from kpi_pipeline.services.dagster_home import child_environment, dagster_instance, update_grid
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.services.servers import report_lost_runs
from kpi_pipeline.settings import Settings

# What other parts of an installation on one machine find without an option.
CODE_SERVER = "127.0.0.1:4266"
# A daemon sends a heartbeat every 30 s, later on a busy machine.
_SILENCE_SECONDS = 120.0


class Part(StrEnum):
    """A process of Dagster's, by the module in orchestration/runtime/ that runs it."""

    CODE_SERVER = "code_server"
    DAEMON = "daemon"
    PAGE = "webserver"


@dataclass(frozen=True)
class Process:
    """A command line, and the environment that it needs."""

    command: list[str]
    environment: dict[str, str]


def part_process(settings: Settings, part: Part, code_server: str) -> Process:
    """The process that is this part; the caller becomes it.

    `code_server` is HOST:PORT: where the code server listens, or where the others find it. A code
    server that starts is the only one: runs that seem to be under way ended with the one before it,
    and are reported as failed, so Dagster starts them again.

    Raises:
        KpiError: if the settings name no database server, it is unreachable or behind the code, or
            `code_server` is no address.
    """
    host, port = _host_and_port(code_server)
    with _ready(settings, part) as ready:
        environment = child_environment(ready)
        command = [sys.executable, "-m", f"kpi_pipeline.orchestration.runtime.{part.value}"]
        if part is Part.CODE_SERVER:
            with open_app(ready) as app, dagster_instance(ready) as opened:
                update_grid(app, ready)
                report_lost_runs(opened)
            return Process([*command, f"{host}:{port}", ready.log_format], environment)
        # One for each part: they may share the folder.
        workspace = Path(environment["DAGSTER_HOME"]) / f"{part.value}.yaml"
        server = {"host": host, "port": port, "location_name": LOCATION}
        workspace.write_text(json.dumps({"load_from": [{"grpc_server": server}]}))
        if part is Part.DAEMON:
            command.append("run")
        command += ["-w", str(workspace)]
        if ready.log_format == "json":
            command += ["--log-format", "json"]
        return Process(command, environment)


@contextmanager
def _ready(settings: Settings, part: Part) -> Iterator[Settings]:
    if settings.database_url is None:
        name = part.name.lower().replace("_", "-")
        raise KpiError(
            f"KPI_DATABASE_URL is not set. `kpi dagster {name}` needs a PostgreSQL server that "
            "other parts reach as well. `kpi up` runs everything, and has one."
        )
    with ready_databases(settings) as ready:
        yield ready


def require_heartbeat(settings: Settings) -> None:
    """Check that a daemon works on the database, without loading Dagster: half a second.

    Raises:
        KpiError: if none has sent a heartbeat lately.
    """
    engine = open_dagster_database(dagster_address(settings))
    try:
        heartbeats = read_activity(engine).heartbeats
    except OperationalError:
        return
    finally:
        engine.dispose()
    youngest = min(heartbeats.values(), default=None)
    if youngest is None or youngest > _SILENCE_SECONDS:
        when = "ever" if youngest is None else f"for {youngest:.0f} s"
        raise KpiError(f"No daemon of Dagster has sent a heartbeat {when}.")


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise KpiError(f"{address!r} is not an address; write HOST:PORT, such as {CODE_SERVER}.")
    return host, int(port)
