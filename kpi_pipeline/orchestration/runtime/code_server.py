"""Dagster's code server, as `kpi up` runs it: one for the page and the daemon, that forks its runs.

`python -m kpi_pipeline.orchestration.runtime.code_server ADDRESS [json]` starts it, on a socket's
path or at HOST:PORT. It has no login: a port is for a private network alone. Dagster's own
(`dagster api grpc`) starts a new Python for each run, which imports Dagster, SQLAlchemy and the
pipeline again: more than half of the CPU time of a run over a client's year. Its page and daemon
start one server each, and the daemon a new one every minute. This one imports once.
"""

import multiprocessing
import signal
import sys
import threading
from multiprocessing import forkserver

from kpi_pipeline.orchestration.dagster_private import serve_code
from kpi_pipeline.orchestration.runtime import DEFINITIONS, LOCATION
from kpi_pipeline.probe import Address, parsed_address
from kpi_pipeline.settings.logs import log_to_standard_error

PRELOAD = "kpi_pipeline.orchestration.runtime.preload"
# The page and the daemon ask at once, and a sensor that reads a dropped file takes its time.
_THREADS = 32


def serve(address: Address, log_format: str = "text") -> None:
    """Serve at this address until SIGTERM or Ctrl-C; the environment is that of Dagster's page.

    A run is forked from a process that has imported everything, and has no threads and no
    connections, so that the fork loses and doubles nothing; forking this process would. A run stays
    a process of its own: it is killed, cancelled and reported as before.
    """
    log_to_standard_error(log_format, "kpi_pipeline")
    ended = threading.Event()
    # Not Dagster's handlers: they ignore SIGTERM where SIGINT is ignored, as it is in what a shell
    # starts in the background, and a server whose parent was killed would stay forever.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    forkserver.set_forkserver_preload([PRELOAD])
    # It imports while this process loads the definitions.
    forkserver.ensure_running()
    serve_code(
        DEFINITIONS,
        LOCATION,
        address,
        ended=ended,
        processes=multiprocessing.get_context("forkserver"),
        threads=_THREADS,
        log_json=log_format == "json",
    )


if __name__ == "__main__":
    serve(parsed_address(sys.argv[1]), *sys.argv[2:])
