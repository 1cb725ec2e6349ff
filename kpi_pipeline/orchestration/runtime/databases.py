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
from kpi_pipeline.db.server.addresses import dagster_address
from kpi_pipeline.db.server.engine import ensure_database, open_engine
from kpi_pipeline.db.server.urls import for_dagster, with_schema
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
    kpi = with_schema(_join(settings), settings.database_schema)
    address = kpi.render_as_string(hide_password=False)
    return settings.model_copy(update={"database_url": SecretStr(address)})


def storage_address(settings: Settings) -> str:
    """The address of Dagster's own database, with its password, as dagster-postgres reads it.

    Raises:
        KpiError: if a setting is no address, or the embedded server does not start.
    """
    named = settings.dagster_database_url or settings.database_url
    return for_dagster(dagster_address(settings, None if named else _join(settings)))


def _join(settings: Settings) -> URL:
    """Use the embedded server until this process ends; its databases are created and upgraded."""
    # Imported late: most processes are given an address, and load no embedded server.
    from kpi_pipeline.db.server.embedded import embedded_server

    state_dir = settings.state_dir
    with _joining:
        if state_dir not in _joined:
            until_exit = ExitStack()
            kpi = until_exit.enter_context(embedded_server(state_dir))
            atexit.register(until_exit.close)
            ours = with_schema(kpi, settings.database_schema)
            for url in (ours, dagster_address(settings, kpi)):
                ensure_database(url)
            engine = open_engine(ours)
            try:
                upgrade(engine)
            finally:
                engine.dispose()
            _joined[state_dir] = kpi
        return _joined[state_dir]
