"""The embedded PostgreSQL: a wheel brings the programs, the state folder holds the data.

Several processes share one server; the last one to end stops it, however the others ended.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import URL

from kpi_pipeline.db.server.embedded.server import EmbeddedServer
from kpi_pipeline.settings.places import state_folder_error

__all__ = ["EmbeddedServer", "embedded_server"]


@contextmanager
def embedded_server(state_dir: Path, database: str = "kpi") -> Iterator[URL]:
    """Run the embedded PostgreSQL of `state_dir`, and yield the address of `database` on it.

    It listens on a Unix socket only, in a folder that no other user may enter. The address stays
    the same for as long as the server has users. This does not create the database.

    Raises:
        KpiError: if the state folder can't be used, or the server does not start.
    """
    server = EmbeddedServer(state_dir)
    with ExitStack() as stack:
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            stack.enter_context(server.in_use())
            address = server.address(database)
        except OSError as error:
            raise state_folder_error(state_dir, error) from error
        yield address
