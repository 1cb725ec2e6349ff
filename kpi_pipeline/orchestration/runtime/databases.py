"""Addresses of the databases for any Dagster process, also one that `kpi up` did not start.

`kpi up` passes the addresses to the processes that it starts. `dagster dev`, `dg dev` and Dagster's
other commands know the settings alone. Where those name no server, each of their processes joins
the embedded server, or starts it; it stops when the last process ends.
"""

import atexit
import threading
from contextlib import ExitStack
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import URL

from kpi_pipeline.db.migrate import upgrade
from kpi_pipeline.db.server.engine import ensure_database, open_engine
from kpi_pipeline.db.server.urls import dagster_url, for_dagster, parse_url
from kpi_pipeline.settings import Settings

_joined: dict[Path, URL] = {}
# Dagster evaluates sensors in several threads of one process.
_joining = threading.Lock()


def with_database(settings: Settings) -> Settings:
    """The settings with an address of the KPI database: the configured one, or the embedded one.

    Raises:
        KpiError: if the embedded server does not start.
    """
    if settings.database_url is not None:
        return settings
    address = _join(settings.state_dir).render_as_string(hide_password=False)
    return settings.model_copy(update={"database_url": SecretStr(address)})


def storage_address(settings: Settings) -> str:
    """The address of Dagster's own database, with its password, as dagster-postgres reads it.

    Raises:
        KpiError: if a setting is no address, or the embedded server does not start.
    """
    if settings.dagster_database_url is not None:
        address = settings.dagster_database_url.get_secret_value()
        return for_dagster(parse_url(address, "KPI_DAGSTER_DATABASE_URL"))
    if settings.database_url is not None:
        address = settings.database_url.get_secret_value()
        return for_dagster(dagster_url(parse_url(address, "KPI_DATABASE_URL")))
    return for_dagster(dagster_url(_join(settings.state_dir)))


def _join(state_dir: Path) -> URL:
    """Use the embedded server until this process ends; its databases are created and upgraded."""
    # Imported late: most processes are given an address, and load no embedded server.
    from kpi_pipeline.db.server.embedded import embedded_server

    with _joining:
        if state_dir not in _joined:
            until_exit = ExitStack()
            kpi = until_exit.enter_context(embedded_server(state_dir))
            atexit.register(until_exit.close)
            for url in (kpi, dagster_url(kpi)):
                ensure_database(url)
            engine = open_engine(kpi)
            try:
                upgrade(engine)
            finally:
                engine.dispose()
            _joined[state_dir] = kpi
        return _joined[state_dir]
