"""Serves the definitions to Dagster's page and daemon, and starts their runs by forking."""

import logging
import multiprocessing
import os
import signal
import threading
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.utils import FuturesAwareThreadPoolExecutor
from dagster._grpc.server import DagsterApiServer, DagsterGrpcServer
from dagster._utils.log import configure_loggers

from kpi_pipeline.orchestration.runtime.code_server import DEFINITIONS, FOR_RUNS, LOCATION

# The page and the daemon ask at once, and a sensor that reads a dropped file takes its time.
_WORKERS = 32


class ForkingServer(DagsterApiServer):
    """Dagster's server, but for the process of a run: forked from one that has imported all.

    That process has no threads and no connections, so nothing is lost or doubled by the fork, as it
    would be if this one were forked. A run stays a process of its own: it is killed, cancelled and
    missed as before.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The one thing of Dagster's that is replaced: its context spawns.
        context: Any = multiprocessing.get_context("forkserver")
        self._mp_ctx = context


def serve(socket: Path) -> None:
    """Serve on a Unix socket until SIGTERM or Ctrl-C; the environment is that of Dagster's page."""
    ended = threading.Event()
    # Not Dagster's handlers: they have SIGTERM ignored where SIGINT is, as it is in what a shell
    # starts in the background, and a server whose parent was killed would stay for ever.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    configure_loggers()
    logger = logging.getLogger("dagster.code_server")
    # NumPy would start threads for algebra that nothing here does.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    forkserver.set_forkserver_preload(list(FOR_RUNS))
    # While this process loads the definitions, that one imports the same.
    forkserver.ensure_running()
    workers = FuturesAwareThreadPoolExecutor(max_workers=_WORKERS)
    servicer = ForkingServer(
        server_termination_event=ended,
        logger=logger,
        server_threadpool_executor=workers,
        loadable_target_origin=LoadableTargetOrigin(module_name=DEFINITIONS),
        location_name=LOCATION,
    )
    server: Any = DagsterGrpcServer(
        server_termination_event=ended,
        dagster_api_servicer=servicer,
        logger=logger,
        threadpool_executor=workers,
        socket=str(socket),
    )
    logger.info("Serving %s in process %s", LOCATION, os.getpid())
    server.serve()
    logger.info("The code server was told to stop")
